//! Inputs that are accepted, because only the task can tell that they are bad, and end as `failed`.

use crate::cluster::{fixture, on_cluster};
use crate::http::{expect_accepted, expect_failed, file_form, post_form, terminal_event};

#[actix_web::test]
async fn text_is_media_for_no_task() {
    on_cluster(&[], async |cluster| {
        let text = "This is a letter, and no sound at all.\n".repeat(50);
        let tasks =
            [("probe", "audio"), ("vad", "WAV"), ("loudness", "WAV"), ("waveform", "WAV"), ("thumbnail", "PNG")];
        for (task, reads) in tasks {
            let id = expect_accepted(task, post_form(cluster, file_form(task, text.clone())).await).await;
            let says = ["not recognised as media", "input.bin", "send", reads];
            expect_failed(cluster, task, &id, "not_media", &says).await;
        }
    })
    .await;
}

#[actix_web::test]
async fn a_cut_file_is_told_to_be_cut() {
    on_cluster(&[], async |cluster| {
        for file in
            ["audio/speech.wav", "audio/speech.flac", "audio/speech.mp3", "audio/speech.ogg", "audio/speech.m4a"]
        {
            let whole = fixture(file);
            for task in ["vad", "loudness", "waveform"] {
                let case = format!("{task} of half of {file}");
                let half = whole[..whole.len() / 2].to_vec();
                let id = expect_accepted(&case, post_form(cluster, file_form(task, half)).await).await;
                expect_failed(cluster, &case, &id, "truncated_media", &["cut off", "send the whole file again"]).await;
            }
        }
        for file in ["images/picture.png", "images/picture.jpg"] {
            let whole = fixture(file);
            let half = whole[..whole.len() / 2].to_vec();
            let id = expect_accepted(file, post_form(cluster, file_form("thumbnail", half)).await).await;
            expect_failed(cluster, file, &id, "truncated_media", &["cut off", "send the whole file again"]).await;
        }
        // Only the beginning of a header.
        let id = expect_accepted("header", post_form(cluster, file_form("loudness", b"RIFF".as_slice())).await).await;
        let error = terminal_event(cluster, &id).await.error.expect("it fails");
        assert!(["truncated_media", "not_media"].contains(&error.code.as_str()), "{error:?}");
    })
    .await;
}

#[actix_web::test]
async fn media_of_another_kind_is_named() {
    on_cluster(&[], async |cluster| {
        let cases = [
            ("thumbnail", "audio/tone.flac", "unsupported_media", &["flac audio", "PNG, JPEG or WebP"]),
            ("loudness", "images/picture.png", "unsupported_media", &["png image", "WAV, FLAC"]),
            ("vad", "audio/opus.ogg", "unsupported_media", &["opus", "send"]),
            ("waveform", "audio/speech.aiff", "unsupported_media", &["AIFF", "send"]),
            ("thumbnail", "images/bomb.png", "media_too_large", &["limit", "image"]),
        ];
        for (task, file, code, says) in cases {
            let case = format!("{task} of {file}");
            let id = expect_accepted(&case, post_form(cluster, file_form(task, fixture(file))).await).await;
            expect_failed(cluster, &case, &id, code, says).await;
        }
    })
    .await;
}
