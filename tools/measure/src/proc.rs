//! What the files of /proc say (proc(5)).

/// The number behind `NAME:` in a file of lines, such as `VmHWM:  1234 kB`.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_name() {
        let status = "VmPeak:\t  9000 kB\nVmHWM:\t    1234 kB\nvoluntary_ctxt_switches:\t150\n";
        assert_eq!(field(status, "VmHWM"), Some(1_234));
        assert_eq!(field(status, "voluntary_ctxt_switches"), Some(150));
        assert_eq!(field(status, "VmRSS"), None);
    }
}
