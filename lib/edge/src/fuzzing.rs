//! What tests and fuzz targets see of the readers: a stream, cut into pieces, as requests.

use crate::request::{Complete, Next, Reader};

/// What is read of a stream that comes in pieces of so many bytes: the requests, then the status of a refusal, or how many
/// bytes are left.
pub fn read(bytes: &[u8], piece: usize) -> (Vec<String>, Result<usize, u16>) {
    let mut reader = Reader::default();
    let mut requests = Vec::new();
    let mut pieces = bytes.chunks(piece);
    loop {
        match reader.next() {
            Ok(Next::Complete(whole)) => requests.push(format!("{:?}", Complete { memory: 0, ..*whole })),
            Ok(Next::Continue) => (),
            Ok(Next::More) => match pieces.next() {
                Some(piece) => reader.push(piece),
                None => return (requests, Ok(reader.held_len())),
            },
            Err(refused) => return (requests, Err(refused.flaw.status.as_u16())),
        }
    }
}
