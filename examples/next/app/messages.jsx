'use client';
import { useEffect, useState } from 'react';

export default function Messages() {
  const [messages, setMessages] = useState([]);
  useEffect(() => {
    const events = new EventSource('/stream');
    events.onmessage = ({ data, lastEventId }) => setMessages((all) => [...all, { data, lastEventId }]);
    return () => events.close();
  }, []);
  return <ul>{messages.map(({ data, lastEventId }) => <li key={lastEventId}>{data}</li>)}</ul>;
}
