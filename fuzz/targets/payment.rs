//! The body of a payment: what is accepted is JSON, has an amount that can be paid, and another parser reads the same.
#![no_main]

use api::payment::Payment;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;
use wire::PaymentId;

fuzz_target!(|data: &[u8]| {
    if data.len() > edge::limits::BODY_BYTES_MAX {
        return;
    }
    let Ok(payment) = Payment::parse(data) else { return };
    assert!(payment.cents.is_payable());
    let text = std::str::from_utf8(data).expect("it is UTF-8");
    serde_json::from_str::<&RawValue>(text).expect("it is JSON");
    // Deep nesting and lone surrogates are JSON that this parser does not take.
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return };
    let id = fields["correlationId"].as_str().and_then(PaymentId::parse);
    assert_eq!(id, Some(payment.id));
    let amount = fields["amount"].as_f64().expect("a number");
    assert_eq!((amount * 100.0).round() as i64, payment.cents.0, "{amount}");
});
