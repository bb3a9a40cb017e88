//! RFC 3339 as real producers write it.

use proptest::prelude::*;
use relay_protocol::time::{TIME_MS_MAX, format_rfc3339, parse_rfc3339};

const MS: u64 = 1_795_458_600_123;

#[test]
fn every_spelling_of_one_instant() {
    let spellings = [
        "2026-11-23T18:30:00.123Z",
        "2026-11-23T18:30:00.123456789Z",
        "2026-11-23T18:30:00.123456+00:00", // Python's isoformat()
        "2026-11-23T18:30:00.123-00:00",
        "2026-11-23T20:30:00.123+02:00",
        "2026-11-23T13:00:00.123-05:30",
        "2026-11-24T00:15:00.123+05:45",
        "2026-11-23 18:30:00.123Z",
        "2026-11-23t18:30:00.123z",
    ];
    for text in spellings {
        assert_eq!(parse_rfc3339(text), Ok(MS), "{text}");
    }
    assert_eq!(format_rfc3339(MS), spellings[0]);
    assert_eq!(parse_rfc3339("2026-11-23T18:30:00Z"), Ok(MS - 123));
}

#[test]
fn the_ends_of_time() {
    assert_eq!(parse_rfc3339("1970-01-01T00:00:00Z"), Ok(0));
    assert_eq!(parse_rfc3339("1969-12-31T23:00:00-01:00").ok(), None, "before 1970 as written");
    assert_eq!(parse_rfc3339("1970-01-01T00:59:59+01:00"), Err("before 1970".to_owned()));
    assert_eq!(parse_rfc3339("9999-12-31T23:59:59.999Z"), Ok(TIME_MS_MAX));
    assert_eq!(parse_rfc3339("9999-12-31T23:59:59.999-00:01"), Err("after the year 9999".to_owned()));
    assert_eq!(format_rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    assert_eq!(parse_rfc3339("2000-02-29T00:00:00Z"), Ok(951_782_400_000));
    assert_eq!(parse_rfc3339("2016-12-31T23:59:60Z"), parse_rfc3339("2016-12-31T23:59:59Z"), "a leap second");
}

#[test]
fn what_is_no_time_is_refused() {
    let bad = [
        "",
        "Z",
        "tomorrow",
        "2026-11-23",
        "2026-11-23T18:30:00",
        "2026-11-23T18:30Z",
        "2026-11-23T18:30:00.Z",
        "2026-11-23T18:30:00.123+99999",
        "2026-11-23T18:30:00.123+1234Z",
        "2026-11-23T18:30:00+02",
        "2026-11-23T18:30:00+0200",
        "2026-11-23T18:30:00+24:00",
        "2026-11-23T18:30:00+02:60",
        "2026-11-23T18:30:00~02:00",
        "2026-11-23T24:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-23T18:30:00.1.2Z",
        "2026-11-23T18:30:00Zusatz",
        "２026-11-23T18:30:00Z",
        " 2026-11-23T18:30:00Z",
        "1795458600123",
    ];
    for text in bad {
        assert!(parse_rfc3339(text).is_err(), "{text:?} is taken as {:?}", parse_rfc3339(text));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(ms in 0..=TIME_MS_MAX) {
        prop_assert_eq!(parse_rfc3339(&format_rfc3339(ms)), Ok(ms));
    }

    #[test]
    fn any_text_is_a_time_or_an_error(text in ".{0,40}") {
        let _time_or_error = parse_rfc3339(&text);
    }

    #[test]
    fn almost_a_time_is_a_time_or_an_error(text in "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9][.+-]?[0-9+:-]{0,8}[Zz]?") {
        if let Ok(ms) = parse_rfc3339(&text) {
            prop_assert!(ms <= TIME_MS_MAX);
        }
    }
}
