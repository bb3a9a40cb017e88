//! Whatever the bytes are, every task answers, soon, in bounded memory, without a panic.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use relay_node::backend::builtin::BuiltinTask;

use crate::support::{IMAGES, SPEECH, audio, image, plain};

/// Far above what any of these small inputs takes, far below what a loop without end takes.
const SOON: Duration = Duration::from_secs(20);

fn all_answer(bytes: &[u8], what: &str) {
    for task in BuiltinTask::ALL {
        let began = Instant::now();
        let outcome = plain(*task, bytes.to_vec());
        assert!(began.elapsed() < SOON, "{what}: {} took {:?}", task.name(), began.elapsed());
        if let Err(error) = outcome {
            assert!(!error.to_string().is_empty() && !error.retryable(), "{what}: {error}");
        }
    }
}

fn fixtures() -> Vec<(&'static str, Vec<u8>)> {
    let sounds = SPEECH.iter().map(|(name, _)| (*name, audio(name)));
    sounds.chain(IMAGES.iter().map(|name| (*name, image(name)))).collect()
}

#[test]
fn files_cut_at_every_kibibyte() {
    for (name, whole) in fixtures() {
        for cut in (0..whole.len()).step_by(1_024) {
            all_answer(&whole[..cut], &format!("{name} cut at {cut}"));
        }
    }
}

#[test]
fn files_without_their_beginning() {
    for (name, whole) in fixtures() {
        for from in (1..whole.len()).step_by(whole.len() / 16) {
            all_answer(&whole[from..], &format!("{name} from {from}"));
        }
    }
}

/// The first bytes of each kind, so that random bytes get past the door.
const MAGIC: &[&[u8]] = &[
    b"",
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x02\0\x80\xbb\0\0\0\xee\x02\0\x04\0\x10\0data\xff\xff\xff\xff",
    b"RIFF\xff\xff\xff\xffWAVEfmt ",
    b"fLaC\0\0\0\x22",
    b"OggS\0\x02\0\0\0\0\0\0\0\0",
    b"\0\0\0\x10ftypM4A \0\0\0\0",
    b"\0\0\0\x10ftypM4A \0\0\0\0\0\0\x10\0moov",
    b"ID3\x04\0\0\0\0\0\x10",
    b"\xff\xfb\x90\x64",
    b"\xff\xf1\x4c\x80\x20\x1f\xfc",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"\xff\xd8\xff\xe0",
    b"RIFF\x40\0\0\0WEBPVP8 ",
    b"RIFF\x40\0\0\0WEBPVP8L",
    b"RIFF\x40\0\0\0WEBPVP8X",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(magic in prop::sample::select(MAGIC), rest in prop::collection::vec(any::<u8>(), 0..4_096)) {
        all_answer(&[magic, &rest].concat(), "random bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits(
        which in 0..SPEECH.len() + IMAGES.len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u8, any::<bool>()), 1..12),
    ) {
        let (name, mut file) = fixtures().swap_remove(which);
        for (at, bit, in_header) in flips {
            let within = if in_header { file.len().min(512) } else { file.len() };
            file[at.index(within)] ^= 1 << bit;
        }
        all_answer(&file, name);
    }
}
