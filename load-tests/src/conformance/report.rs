//! What was checked and how it went: as text, and as JUnit XML.

use std::fmt::{self, Write as _};

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Passed,
    /// What was found instead.
    Failed(String),
    /// Why it could not be checked.
    Skipped(String),
}

/// One named check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Stable name, `part.rule`.
    pub name: String,
    /// What the contract says.
    pub expected: String,
    /// How it went.
    pub outcome: Outcome,
}

/// The checks of one run, in order.
#[derive(Debug, Default)]
pub struct Report {
    checks: Vec<Check>,
}

impl Report {
    /// Adds a check.
    pub fn add(&mut self, name: &str, expected: &str, outcome: Outcome) {
        self.checks.push(Check { name: name.to_owned(), expected: expected.to_owned(), outcome });
    }

    /// Adds a check that passed, or failed with the error's words.
    pub fn expect(&mut self, name: &str, expected: &str, found: anyhow::Result<()>) {
        self.add(
            name,
            expected,
            found.map_or_else(|error| Outcome::Failed(format!("{error:#}")), |()| Outcome::Passed),
        );
    }

    /// All checks.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Failed(_))).count()
    }

    fn skipped(&self) -> usize {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Skipped(_))).count()
    }

    /// The report as JUnit XML: one test case for each check.
    pub fn junit(&self) -> String {
        let counts =
            format!("tests=\"{}\" failures=\"{}\" skipped=\"{}\"", self.checks.len(), self.failed(), self.skipped());
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n<testsuite name=\"media-relay.conformance\" {counts}>\n"
        );
        for check in &self.checks {
            let class = check.name.split('.').next().unwrap_or_default();
            let body = match &check.outcome {
                Outcome::Passed => String::new(),
                Outcome::Failed(got) => format!(
                    "<failure message=\"{}\">expected: {}\ngot: {}</failure>",
                    escaped(got.lines().next().unwrap_or_default()),
                    escaped(&check.expected),
                    escaped(got)
                ),
                Outcome::Skipped(why) => format!("<skipped message=\"{}\"/>", escaped(why)),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                xml,
                "<testcase classname=\"media-relay.{}\" name=\"{}\">{body}</testcase>",
                escaped(class),
                escaped(&check.name)
            );
        }
        xml.push_str("</testsuite>\n</testsuites>\n");
        xml
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let (word, detail) = match &check.outcome {
                Outcome::Passed => ("ok     ", None),
                Outcome::Failed(got) => ("FAILED ", Some(got)),
                Outcome::Skipped(why) => ("skipped", Some(why)),
            };
            writeln!(f, "{word} {}: {}", check.name, check.expected)?;
            for line in detail.into_iter().flat_map(|detail| detail.lines()) {
                writeln!(f, "          {line}")?;
            }
        }
        writeln!(
            f,
            "{} passed, {} failed, {} skipped",
            self.checks.len() - self.failed() - self.skipped(),
            self.failed(),
            self.skipped()
        )
    }
}

/// Text as XML takes it; characters that XML 1.0 has no way to write become U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' | '\r' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[path = "report_test.rs"]
mod tests;
