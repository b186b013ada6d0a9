import { stream } from 'tidings';

export const GET = (request) => stream(request, 'chat', { since: '-50' });
