//! Time on every answer: `X-Process-Time: 23.45ms` and `Server-Timing` with every stage
//! (W3C Server Timing, in milliseconds).

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use bytes::{BufMut, BytesMut};
use caudal_types::StageTimes;

pub(crate) const PROCESS_TIME: HeaderName = HeaderName::from_static("x-process-time");
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// `23.45ms`.
pub(crate) fn process_time(took: Duration) -> HeaderValue {
    let mut text = BytesMut::with_capacity(16);
    let hundredths = (took.as_micros() + 5) / 10;
    put_number(&mut text, hundredths / 100);
    text.put_u8(b'.');
    put_padded(&mut text, hundredths % 100, 2);
    text.put_slice(b"ms");
    HeaderValue::from_maybe_shared(text.freeze()).expect("digits and letters make a header")
}

/// `receive;dur=0.012, queue;dur=1.200, total;dur=1.212`.
pub(crate) fn server_timing(stamps: &StageTimes) -> HeaderValue {
    let mut text = BytesMut::with_capacity(192);
    for (stage, spent) in stamps.iter() {
        put_metric(&mut text, stage.name(), spent);
        text.put_slice(b", ");
    }
    put_metric(&mut text, "total", stamps.total());
    HeaderValue::from_maybe_shared(text.freeze()).expect("names and digits make a header")
}

fn put_metric(text: &mut BytesMut, name: &str, spent: Duration) {
    text.put_slice(name.as_bytes());
    text.put_slice(b";dur=");
    let micros = spent.as_micros();
    put_number(text, micros / 1000);
    text.put_u8(b'.');
    put_padded(text, micros % 1000, 3);
}

fn put_number(text: &mut BytesMut, number: u128) {
    if number >= 10 {
        put_number(text, number / 10);
    }
    text.put_u8(b'0' + (number % 10) as u8);
}

fn put_padded(text: &mut BytesMut, number: u128, digits: u32) {
    for place in (0..digits).rev() {
        text.put_u8(b'0' + (number / 10u128.pow(place) % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_types::Stage;
    use std::time::Instant;

    #[test]
    fn times_are_written_as_people_know_them() {
        for (micros, text) in
            [(23_451, "23.45ms"), (0, "0.00ms"), (5, "0.01ms"), (1_234_567, "1234.57ms"), (99_999, "100.00ms")]
        {
            assert_eq!(process_time(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn every_stage_that_took_time_is_named() {
        let start = Instant::now();
        let mut stamps = StageTimes::new(start);
        stamps.enter(Stage::Infer, start + Duration::from_micros(12));
        stamps.enter(Stage::Finish, start + Duration::from_micros(40_212));
        assert_eq!(server_timing(&stamps), "receive;dur=0.012, infer;dur=40.200, total;dur=40.212");
    }
}
