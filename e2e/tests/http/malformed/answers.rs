//! Answers as they came, read by the letter: whatever is not a status line, known fields and exactly the body that they
//! announce is a flaw.

use crate::harness::client::Answer;

/// Every field that an answer may have.
const FIELDS: [&str; 6] = ["allow", "connection", "content-length", "content-type", "date", "retry-after"];

/// All answers of a stream that has ended. `is_head` tells of the answer with a number whether it is one to `HEAD`.
pub(crate) fn read_all(mut bytes: &[u8], is_head: impl Fn(usize) -> bool) -> Result<Vec<Answer>, String> {
    let mut answers: Vec<Answer> = Vec::new();
    let mut number = 0;
    while !bytes.is_empty() {
        let mut answer = head(&mut bytes)?;
        let is_interim = answer.status < 200;
        if is_interim && answer.status != 100 {
            return Err(format!("{} as an interim answer", answer.status));
        }
        let len = answer.field("content-length").map(str::parse::<usize>);
        let has_body = !is_interim && answer.status != 204 && !is_head(number);
        let len = match len {
            Some(Ok(len)) if has_body => len,
            _ if !has_body => 0,
            _ => return Err(format!("{} with a length of {len:?}", answer.status)),
        };
        let (body, rest) = bytes.split_at_checked(len).ok_or("a close inside a body")?;
        answer.body = String::from_utf8(body.to_vec()).map_err(|_| "a body that is no UTF-8")?;
        bytes = rest;
        number += usize::from(!is_interim);
        answers.push(answer);
    }
    Ok(answers)
}

fn head(bytes: &mut &[u8]) -> Result<Answer, String> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or("a close inside a head")?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head that is no UTF-8")?;
    *bytes = &bytes[end + 4..];
    let flaw = |what: &str| format!("{what} in {head:?}");
    if head.replace("\r\n", "").contains(|c: char| c.is_ascii_control() || !c.is_ascii()) {
        return Err(flaw("a control character"));
    }
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let (version, status) = match line.split_once(' ') {
        Some(("HTTP/1.1", status)) => (1, status),
        Some(("HTTP/1.0", status)) => (0, status),
        _ => return Err(flaw("another version")),
    };
    let code = status.split_once(' ').map(|(code, _)| code).filter(|code| code.len() == 3);
    let status = code.and_then(|code| code.parse().ok()).filter(|code| (100..600).contains(code));
    let status = status.ok_or_else(|| flaw("no status"))?;
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| flaw("no field"))?;
        let name = name.to_ascii_lowercase();
        let is_new = fields.iter().all(|(other, _)| *other != name);
        if !FIELDS.contains(&name.as_str()) || !is_new || value.trim() != value {
            return Err(flaw("a field of no use"));
        }
        fields.push((name, value.to_owned()));
    }
    Ok(Answer { status, version, fields, body: String::new() })
}
