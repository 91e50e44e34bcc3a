//! A stream of a client: it is read as requests, refused, or waited for, and it makes no difference how it is cut.
#![no_main]

use edge::fuzzing::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&piece, data)) = data.split_first() else { return };
    // A head is looked for only where a line ends.
    let data = [data, b"\n"].concat();
    let whole = read(&data, data.len());
    assert_eq!(read(&data, usize::from(piece) + 1), whole);
});
