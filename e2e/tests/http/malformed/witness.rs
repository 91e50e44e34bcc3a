//! In the place of an api: it tells each request that lb sends on by an answer that only this request has, and writes
//! down what it has seen.

use super::reference::{Reading, Request, Rest};
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

/// The fields that lb sends on.
const FIELDS: [&str; 6] =
    ["accept", "content-encoding", "content-length", "content-type", "host", "x-rinha-token"];

/// What it is about in a request, in a few letters.
pub(crate) fn digest(request: &Request) -> String {
    let mut hasher = DefaultHasher::new();
    let field = |name: &str| request.values(name).next().unwrap_or(b"(none)").to_vec();
    let fields = ["content-type", "content-encoding", "x-rinha-token"].map(field);
    // Of a request that only reads, and as one list.
    let is_reading = matches!(request.method.as_str(), "GET" | "HEAD");
    let accept = request.values("accept").filter(|_| is_reading).collect::<Vec<_>>().join(&b", "[..]);
    (&request.method, &request.target, fields, accept, &request.body).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// What was seen, by its digest, and how often.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: BTreeMap<String, (usize, String)>,
    pub(crate) flaws: Vec<String>,
}

/// Listens until this process ends.
pub(crate) fn listen(path: &Path, seen: &Arc<Mutex<Seen>>) {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).expect("the path is free");
    let seen = Arc::clone(seen);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let seen = Arc::clone(&seen);
            let stream = stream.expect("a descriptor is left");
            thread::spawn(move || {
                if let Some(flaw) = serve(stream, &seen) {
                    seen.lock().expect("no thread panics").flaws.push(flaw);
                }
            });
        }
    });
}

/// Serves a connection to its end; tells what lb has written that it should not write.
fn serve(mut stream: UnixStream, seen: &Mutex<Seen>) -> Option<String> {
    let mut bytes = Vec::new();
    let mut block = [0; 8192];
    loop {
        let len = stream.read(&mut block).ok()?;
        bytes.extend_from_slice(&block[..len]);
        let text = bytes.escape_ascii().to_string();
        let reading = Reading::of(&bytes);
        let [request] = &reading.requests[..] else {
            let is_begun = reading.requests.is_empty() && matches!(reading.rest, Rest::Incomplete(_));
            match len {
                0 if bytes.is_empty() => return None,
                1.. if is_begun => continue,
                _ => return Some(format!("no single request: {text}")),
            }
        };
        let mut names: Vec<&str> = request.fields.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let is_each_once = names.windows(2).all(|pair| pair[0] != pair[1]);
        let is_plain = is_each_once && names.iter().all(|name| FIELDS.contains(name));
        let target = bytes.split(|byte| *byte == b' ').nth(1);
        if reading.rest != Rest::Nothing || !is_plain || target != Some(&request.target) {
            return Some(format!("not as lb writes it: {text}"));
        }
        let digest = digest(request);
        let answer =
            format!("HTTP/1.1 405 Method Not Allowed\r\nallow: {digest}\r\ncontent-length: 0\r\n\r\n");
        seen.lock().expect("no thread panics").requests.entry(digest).or_insert((0, text)).0 += 1;
        stream.write_all(answer.as_bytes()).ok()?;
        bytes.clear();
    }
}
