//! The standard's algorithm, implemented as literally as possible: the complete stream at once, no
//! limits, no states. It is slow and easy to verify, and the incremental parser is compared with
//! it.

use tidings_sse::{Item, ParsedEvent};

/// The items of a complete stream and the id in force at its end.
pub fn parse(stream: &[u8], mut last_event_id: String) -> (Vec<Item>, String) {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    // What follows the last line end is an unfinished line, or nothing.
    lines.pop();

    let mut items = Vec::new();
    let (mut event_type, mut data, mut id) = (String::new(), String::new(), None);
    for line in lines {
        if line.is_empty() {
            let has_id = id.is_some();
            if let Some(id) = id.take() {
                last_event_id = id;
            }
            if let Some(data) = data.strip_suffix('\n') {
                let event_type = if event_type.is_empty() { "message" } else { &event_type }.to_owned();
                let (data, last_event_id) = (data.to_owned(), last_event_id.clone());
                items.push(Item::Event(ParsedEvent { event_type, data, last_event_id, has_id }));
            }
            event_type.clear();
            data.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => items.push(Item::Comment(value.to_owned())),
            "event" => value.clone_into(&mut event_type),
            "data" => data.extend([value, "\n"]),
            "id" if !value.contains('\0') => id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.chars().all(|c| c.is_ascii_digit()) => {
                // Of digits alone, only a number that is too large does not parse.
                items.push(Item::Retry(value.parse().unwrap_or(u64::MAX)));
            }
            _ => {}
        }
    }
    (items, last_event_id)
}
