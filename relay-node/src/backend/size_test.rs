//! Sizes of real headers and of nonsense.

use bytes::Bytes;

use super::*;

/// Header of a WAV file of 16 kHz, 16 bits, one channel.
const WAV: &[u8; 44] = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\0\0\0\0";

#[tokio::test]
async fn sound_counts_in_seconds_whatever_holds_it() {
    assert_eq!(of_sound(WAV, 320_000), 10.0);
    assert_eq!(of_sound(b"ID3", 160_000), 10.0);
    assert!(of_sound(&[0; 64], 0) > 0.0, "nothing takes no negative time");
    let mut zero_rate = *WAV;
    zero_rate[28..32].fill(0);
    assert_eq!(of_sound(&zero_rate, 16_000), 1.0);
    assert_eq!(of_samples(320_000), 2.0);
    let mut sound = WAV.to_vec();
    sound.resize(64_000, 0);
    let in_memory = Media::memory(Bytes::from(sound.clone()), None, None);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &sound).unwrap();
    let in_file = Media { body: MediaBody::File(file.path().to_owned()), ..in_memory.clone() };
    for media in [in_memory, in_file] {
        assert_eq!(of_job(Task::Transcribe, &media, &Map::new()).await, 2.0);
    }
}

#[test]
fn pictures_count_in_pixels_and_what_is_no_size_is_the_usual_one() {
    assert_eq!(of_picture(Some("256x128"), Some(2)), 65_536.0);
    for size in [None, Some("large"), Some("1x"), Some("-1x4")] {
        assert_eq!(of_picture(size, None), 262_144.0, "{size:?}");
    }
}
