//! A report as text and as XML.

use super::{Outcome, Report};

#[test]
fn hostile_words_stay_inside_their_attribute() {
    let mut report = Report::default();
    report.add("record.key", "a key", Outcome::Failed("\"/><evil a='&'\u{1}\nsecond ]]> line".to_owned()));
    report.add("record.body", "a body", Outcome::Passed);
    report.add("job.ends", "an end", Outcome::Skipped("not asked for".to_owned()));
    let xml = report.junit();
    assert!(xml.contains("<testsuites tests=\"3\" failures=\"1\" skipped=\"1\">"), "{xml}");
    assert!(xml.contains("message=\"&quot;/&gt;&lt;evil a='&amp;'\u{fffd}\""), "{xml}");
    assert!(!xml.contains("<evil") && !xml.contains("]]>"), "{xml}");
    assert_eq!(xml.matches("</testcase>").count(), 3, "{xml}");
}

#[test]
fn the_text_counts_what_the_checks_say() {
    let mut report = Report::default();
    report.expect("a.b", "one", Ok(()));
    report.expect("a.c", "two", Err(anyhow::anyhow!("three")));
    let text = report.to_string();
    assert!(text.contains("ok      a.b: one\nFAILED  a.c: two\n          three\n"), "{text}");
    assert!(text.ends_with("1 passed, 1 failed, 0 skipped\n"), "{text}");
}
