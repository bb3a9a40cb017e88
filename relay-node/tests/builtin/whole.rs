//! A file that is cut off, damaged, or no media gives its error, never a result of what is there.

use relay_node::backend::builtin::BuiltinTask::{Loudness, Probe, Vad};
use relay_node::backend::builtin::{BuiltinTask, Limits, Source, run};
use serde_json::{Map, json};

use crate::support::{AUDIO_TASKS, SPEECH, audio, code, never, plain};

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for (name, _) in SPEECH {
        let whole = audio(name);
        let cuts = (1..whole.len()).step_by(1_021).chain([whole.len() - 1, whole.len() - 10]);
        for cut in cuts {
            let outcome = plain(Loudness, whole[..cut].to_vec());
            // The last frame of an MP3 without a header that counts them may end exactly here: nobody can tell.
            if outcome.is_ok() && name.contains("no-info") && at_frame_border(&whole, cut) {
                continue;
            }
            let code = code(outcome);
            let fitting = ["truncated_media", "not_media"].contains(&code);
            assert!(fitting, "{name} cut at {cut} of {}: {code}", whole.len());
            assert!(code == "truncated_media" || cut < 64, "{name} cut at {cut}: {code}");
        }
    }
}

/// Whether an MP3 frame begins at `at`.
fn at_frame_border(file: &[u8], at: usize) -> bool {
    file.get(at..at + 2).is_some_and(|sync| sync[0] == 0xFF && sync[1] & 0xE0 == 0xE0)
}

#[test]
fn every_audio_task_refuses_what_is_cut_off() {
    for (name, _) in SPEECH {
        let whole = audio(name);
        for task in AUDIO_TASKS {
            let error = plain(*task, whole[..whole.len() * 3 / 5].to_vec()).unwrap_err();
            assert_eq!(error.code(), "truncated_media", "{name}: {error}");
            assert!(error.to_string().contains("send the whole file again"), "{error}");
        }
    }
}

#[test]
fn the_probe_says_that_a_file_is_cut_off() {
    for name in ["speech.wav", "speech.mp3", "speech.ogg", "speech.aac"] {
        let whole = audio(name);
        let result = plain(Probe, whole[..whole.len() / 2].to_vec()).unwrap().result;
        assert_eq!((&result["truncated"], &result["bit_rate"]), (&json!(true), &json!(null)), "{name}: {result}");
    }
}

#[test]
fn kinds_that_are_known_but_not_decoded_are_named() {
    for (name, found) in [("opus.ogg", "opus in ogg"), ("opus.webm", "Matroska or WebM"), ("speech.aiff", "AIFF")] {
        let error = plain(Vad, audio(name)).unwrap_err();
        assert_eq!(error.code(), "unsupported_media", "{name}");
        assert!(error.to_string().contains(found), "{error}");
        assert!(error.to_string().contains("send WAV, FLAC, MP3"), "{error}");
    }
    assert_eq!(plain(Probe, audio("opus.ogg")).unwrap().result["codec"], json!("opus"));
    for (magic, found) in [
        (&b"GIF89a......"[..], "GIF"),
        (b"%PDF-1.7 .....", "PDF"),
        (b"#!AMR\n.......", "AMR"),
        (b"\0\0\0\x20ftypavif....", "AVIF"),
        (b"RIFF\x10\0\0\0AVI ....", "AVI"),
        (b"RF64\xff\xff\xff\xffWAVEds64", "RF64"),
    ] {
        let error = plain(Probe, magic.to_vec()).unwrap_err();
        assert_eq!(error.code(), "unsupported_media", "{found}");
        assert!(error.to_string().contains(found), "{error}");
    }
}

#[test]
fn what_is_no_media_is_called_by_its_name() {
    let text = b"Dear all, this is a letter. It has no sound in it, and no picture.".to_vec();
    for task in BuiltinTask::ALL {
        let source = Source::from_bytes(text.clone().into()).named("letter.mp3").declared_as("audio/mpeg");
        let error = run(*task, &Map::new(), source, &Limits::default(), &mut never).unwrap_err();
        assert_eq!(error.code(), "not_media");
        assert!(
            error.to_string().starts_with("\"letter.mp3\" (audio/mpeg) is not recognised as media; send "),
            "{error}"
        );
        assert_eq!(code(plain(*task, Vec::new())), "empty_media");
    }
}

#[test]
fn damage_in_the_middle_is_found() {
    for name in ["speech.flac", "speech.ogg", "speech.aac", "speech.mp3"] {
        let mut file = audio(name);
        let middle = file.len() / 2;
        file[middle..middle + 600].fill(0x55);
        // A FLAC decoder skips what is damaged: only that something is missing can be told.
        let wanted = if name == "speech.flac" { "truncated_media" } else { "corrupt_media" };
        assert_eq!(code(plain(Loudness, file)), wanted, "{name}");
    }
}

#[test]
fn a_missing_ogg_page_is_found() {
    let file = audio("speech.ogg");
    let pages: Vec<usize> = (0..file.len() - 4).filter(|&at| &file[at..at + 4] == b"OggS").collect();
    let (from, to) = (pages[pages.len() / 2], pages[pages.len() / 2 + 1]);
    let error = plain(Loudness, [&file[..from], &file[to..]].concat()).unwrap_err();
    assert_eq!(error.code(), "corrupt_media", "{error}");
}

#[test]
fn a_medium_that_fails_is_not_blamed_on_the_media() {
    struct Failing(std::io::Cursor<Vec<u8>>);
    impl std::io::Read for Failing {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            if self.0.position() > 100_000 {
                return Err(std::io::Error::other("the share is gone"));
            }
            self.0.read(into)
        }
    }
    impl std::io::Seek for Failing {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
    let file = audio("speech.flac");
    let bytes = file.len() as u64;
    let source = Source::new(Failing(std::io::Cursor::new(file)), bytes);
    let error = run(Loudness, &Map::new(), source, &Limits::default(), &mut never).unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("media_unreadable", true));
    assert!(error.to_string().contains("the share is gone"), "{error}");
}
