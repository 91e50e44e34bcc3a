//! What the status of an answer says about a payment (docs/http.md).

/// What one request for a payment came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// 2xx: the payment must be charged once.
    Accepted,
    /// 503, or 408 where the server was stopped while the request came in: this request recorded nothing; ask again.
    Refused,
    /// Any other 4xx: it recorded nothing, and asking again is of no use.
    Rejected,
    /// 504, another answer, or none: it may be charged or not, but not twice; ask again with the same id.
    Unknown,
}

impl Told {
    /// What an answer with this status says; `None` is no answer.
    #[must_use]
    pub fn of(status: Option<u16>) -> Self {
        match status {
            Some(200..300) => Self::Accepted,
            Some(503 | 408) => Self::Refused,
            Some(400..500) => Self::Rejected,
            _ => Self::Unknown,
        }
    }

    /// True when the answer says that nothing was recorded.
    #[must_use]
    pub fn denies(self) -> bool {
        matches!(self, Self::Refused | Self::Rejected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_whether_to_ask_again() {
        for (status, told) in [
            (Some(200), Told::Accepted),
            (Some(202), Told::Accepted),
            (Some(503), Told::Refused),
            (Some(408), Told::Refused),
            (Some(504), Told::Unknown),
            (Some(500), Told::Unknown),
            (None, Told::Unknown),
            (Some(422), Told::Rejected),
            (Some(302), Told::Unknown),
        ] {
            assert_eq!(Told::of(status), told, "{status:?}");
        }
    }
}
