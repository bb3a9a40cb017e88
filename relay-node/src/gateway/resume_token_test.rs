//! Tokens tell what they were made of, and only to whom they were given.

use std::io::Write as _;

use relay_runtime::auth::Identity;

use super::*;

fn caller_of(tenant: &str, subject: &str) -> Identity {
    Identity { tenant: tenant.to_owned(), subject: subject.to_owned(), ..Identity::anonymous() }
}

fn token() -> ResumeToken {
    ResumeToken {
        session_id: SessionId::new(7 << 100 | 9),
        reply_partition: 251,
        began_at_ms: 1_795_458_600_123,
        durable_from: 70_000,
        revocable_from: u64::MAX,
    }
}

fn sealed(secret: &str) -> ResumeTokens {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{secret}").unwrap();
    ResumeTokens::open(file.path().to_str().unwrap()).unwrap()
}

#[test]
fn a_token_tells_its_caller_what_it_was_made_of_on_any_node() {
    let ann = caller_of("red", "ann");
    for [one, two] in [
        [ResumeTokens::open("").unwrap(), ResumeTokens::open("").unwrap()],
        [sealed("0123456789abcdef"), sealed("0123456789abcdef")],
    ] {
        let text = one.make(&ann, &token()).unwrap();
        assert!(text.len() < 350, "{text}");
        assert_eq!(two.read(&ann, &text), Ok(token()));
        for other in [caller_of("red", "bob"), caller_of("blue", "ann"), caller_of("re", "dann")] {
            assert_eq!(two.read(&other, &text), Err(BadToken::Foreign));
        }
    }
}

#[test]
fn no_byte_of_a_token_can_be_changed() {
    let ann = caller_of("red", "ann");
    for tokens in [ResumeTokens::open("").unwrap(), sealed("0123456789abcdef")] {
        let text = tokens.make(&ann, &token()).unwrap();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'Q' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(tokens.read(&ann, &changed), Err(BadToken::Damaged), "{at}");
        }
        for cut in 0..text.len() {
            assert_eq!(tokens.read(&ann, &text[..cut]), Err(BadToken::Damaged), "{cut}");
        }
        for nothing in ["", ".", "r1..", "r1.AAAA.AAAA", "7f0c2f6e-4f0e-4d28-9d0a-0d8f2b1f9e11"] {
            assert_eq!(tokens.read(&ann, nothing), Err(BadToken::Damaged), "{nothing:?}");
        }
    }
}

#[test]
fn a_seal_of_another_secret_or_of_none_is_refused() {
    let ann = caller_of("red", "ann");
    let [ours, theirs, none] =
        [sealed("0123456789abcdef"), sealed("fedcba9876543210"), ResumeTokens::open("").unwrap()];
    for (makes, reads) in [(&ours, &theirs), (&none, &ours), (&ours, &none)] {
        assert_eq!(reads.read(&ann, &makes.make(&ann, &token()).unwrap()), Err(BadToken::Damaged));
    }
}

#[test]
fn a_short_or_missing_secret_stops_the_start() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "short").unwrap();
    assert!(ResumeTokens::open(file.path().to_str().unwrap()).is_err());
    assert!(ResumeTokens::open("/nowhere/secret").is_err());
}
