//! Mutants of requests, malformed and valid ones, each determined by a seed and a number.

use super::kinds::{Kind, hostile, malformed};
use crate::harness::with_id;
use contest::chance::Chance;
use uuid::Uuid;

/// Longer ones are kinds on their own, and would cost more time than they find.
const STOCK_BYTES_MAX: usize = 3 * 1024;

/// What is put between, or in the place of, other bytes.
const SPICE: [&[u8]; 60] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\x80",
    b"\xff",
    b":",
    b";",
    b",",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"0",
    b"1",
    b"9",
    b"-",
    b"+",
    b".",
    b"e",
    b"e9",
    b"00",
    b"/",
    b"?",
    b"#",
    b"%",
    b"%00",
    b"*",
    b"://",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"0\r\n\r\n",
    b"0\r\nX: a\n\n",
    b";a=\"b\"",
    b" ;",
    b"5\r\nhello\r\n",
    b"Host: b\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 71\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: x\r\n",
    b"Content-Type: text/plain\r\n",
    b"Expect: 100-continue\r\n",
    b"\"amount\":1,",
    b"\\u0061",
    b"\xef\xbb\xbf",
];

/// All mutants of a seed.
pub(crate) struct Mutants {
    seed: u64,
    valid: Vec<Kind>,
    stock: Vec<Kind>,
}

impl Mutants {
    pub(crate) fn new(seed: u64) -> Self {
        let valid: Vec<Kind> =
            hostile().into_iter().filter(|kind| kind.bytes.len() <= STOCK_BYTES_MAX).collect();
        let stock = malformed().into_iter().chain(valid.clone());
        Self { seed, stock: stock.filter(|kind| kind.bytes.len() <= STOCK_BYTES_MAX).collect(), valid }
    }

    /// The mutant with this number, and a chance for whatever else is done with it.
    pub(crate) fn get(&self, number: u64) -> (Kind, Chance) {
        let mut chance = Chance::new(self.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9)));
        let pick = |chance: &mut Chance| {
            let from = if chance.percent(60) { &self.valid } else { &self.stock };
            let at = usize::try_from(chance.between(0, from.len() as u64)).expect("an index");
            &from[at]
        };
        let (kind, other) = (pick(&mut chance), pick(&mut chance));
        let id = Uuid::from_u64_pair(chance.bits(), chance.bits()).to_string();
        let mut bytes = with_id(&kind.bytes, &id);
        for _ in 0..chance.between(1, 4) {
            mutate(&mut bytes, &with_id(&other.bytes, &id), &mut chance);
        }
        if chance.percent(40) {
            reframe(&mut bytes);
        }
        (Kind { name: format!("mutant {number} of {:?}", kind.name), bytes }, chance)
    }
}

fn index(chance: &mut Chance, len: usize) -> usize {
    usize::try_from(chance.between(0, len as u64 + 1)).expect("an index")
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
    let from = index(chance, bytes.len());
    // Mostly a few bytes, sometimes any number of them.
    let reach = if chance.percent(80) { 8.min(bytes.len() - from) } else { bytes.len() - from };
    let to = from + index(chance, reach);
    match chance.between(0, 10) {
        0 | 1 if from < bytes.len() => bytes[from] ^= 1 << chance.between(0, 8),
        2 if from < bytes.len() => bytes[from] = chance.pick(&SPICE)[0],
        0..=4 => drop(bytes.splice(from..from, chance.pick(&SPICE).iter().copied())),
        5 => drop(bytes.splice(from..to, chance.pick(&SPICE).iter().copied())),
        6 => drop(bytes.drain(from..to)),
        7 => {
            let again = bytes[from..to].to_vec();
            bytes.splice(from..from, again);
        }
        8 => bytes.truncate(from),
        _ => {
            let rest = &other[index(chance, other.len())..];
            bytes.truncate(from);
            bytes.extend_from_slice(rest);
        }
    }
}

/// Makes the length right again, where there is one with two digits: what is wrong is then wrong with the rest.
fn reframe(bytes: &mut [u8]) {
    let find =
        |what: &[u8]| bytes.windows(what.len()).position(|window| window == what).map(|at| at + what.len());
    if let (Some(at), Some(body)) = (find(b"Content-Length: "), find(b"\r\n\r\n")) {
        let len = (bytes.len() - body).to_string();
        if len.len() == 2 && at + 2 < body {
            bytes[at..at + 2].copy_from_slice(len.as_bytes());
        }
    }
}
