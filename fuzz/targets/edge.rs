//! A stream of a client: it is read as requests, refused, or waited for, and it makes no difference how it is cut.
#![no_main]

use edge::fuzzing::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&piece, data)) = data.split_first() else { return };
    // A head is looked for only where a line ends.
    let data = [data, b"\n"].concat();
    let ((whole, whole_end), (cut, cut_end)) = (read(&data, data.len()), read(&data, usize::from(piece) + 1));
    assert_eq!(cut, whole);
    // A line or head that is too long is refused before the rest of it has come, which may have another fault.
    let is_too_long = |end: &Result<usize, u16>| matches!(end, Err(414 | 431));
    assert!(cut_end == whole_end || is_too_long(&cut_end) && whole_end.is_err(), "{cut_end:?} and {whole_end:?}");
});
