//! Bytes of a peer as frames, of an api and of the store: what decodes is encoded to a frame that decodes to the same, and
//! a stream gives the same messages however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::fmt::Debug;
use wire::frame::{FRAME_BYTES_MAX, FrameError, Frames, FromApi, FromStore, Message, decode};

fuzz_target!(|data: &[u8]| {
    check::<FromApi>(data);
    check::<FromStore>(data);
});

fn check<M: Message + PartialEq + Debug>(data: &[u8]) {
    if let Ok(Some((message, len))) = decode::<M>(data) {
        assert!((5..=FRAME_BYTES_MAX + 4).contains(&len) && len <= data.len());
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(decode::<M>(&bytes), Ok(Some((message, bytes.len()))));
    }
    let whole = read::<M>(data, data.len().max(1));
    for piece in [1, 7] {
        assert_eq!(read::<M>(data, piece), whole, "in pieces of {piece}");
    }
}

/// All messages of a stream, and what ends it.
fn read<M: Message>(data: &[u8], piece: usize) -> (Vec<M>, Option<FrameError>) {
    let (mut frames, mut messages) = (Frames::default(), Vec::new());
    for piece in data.chunks(piece) {
        if let Err(error) = frames.take(piece, |message| messages.push(message)) {
            return (messages, Some(error));
        }
    }
    (messages, None)
}
