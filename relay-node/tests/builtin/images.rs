//! Thumbnails and probes of images.

use image::{DynamicImage, GenericImageView, ImageFormat};
use relay_node::backend::builtin::BuiltinTask::{Probe, Thumbnail};
use relay_node::backend::builtin::{Limits, Output, Source, run};
use serde_json::{Map, json};

use crate::support::{IMAGES, audio, code, image, never, plain, with};

fn picture(output: Output) -> DynamicImage {
    image::load_from_memory(&output.media.unwrap().bytes).unwrap()
}

#[test]
fn every_format_is_scaled_to_fit() {
    for name in ["picture.png", "picture.jpg", "picture.webp"] {
        for (format, media_type) in [("png", "image/png"), ("jpeg", "image/jpeg")] {
            let params = json!({ "width": "48", "height": 48, "format": format });
            let output = with(Thumbnail, params, image(name)).unwrap();
            assert_eq!((&output.result["width"], &output.result["height"]), (&json!(48), &json!(32)), "{name}");
            assert_eq!(output.media.as_ref().unwrap().media_type, media_type);
            assert_eq!(output.result["source"]["width"], json!(96));
            let small = picture(output);
            assert_eq!(small.dimensions(), (48, 32), "{name} as {format}");
            // Red rises to the right, green downwards, blue fills the top left quarter.
            let [red, green, blue, _] = small.get_pixel(44, 28).0;
            assert!(red > 200 && green > 200 && blue < 60, "{name} as {format}: {red} {green} {blue}");
            let [red, green, blue, _] = small.get_pixel(3, 3).0;
            assert!(red < 60 && green < 60 && blue > 200, "{name} as {format}: {red} {green} {blue}");
        }
    }
}

#[test]
fn nothing_is_scaled_up() {
    let output = plain(Thumbnail, image("picture.png")).unwrap();
    assert_eq!(output.media.as_ref().unwrap().name, "thumbnail.png");
    assert_eq!(picture(output).dimensions(), (96, 64));
}

#[test]
fn a_side_never_becomes_nothing() {
    let mut file = std::io::Cursor::new(Vec::new());
    DynamicImage::new_rgb8(2_000, 1).write_to(&mut file, ImageFormat::Png).unwrap();
    let output = with(Thumbnail, json!({ "width": 10, "height": 10 }), file.into_inner()).unwrap();
    assert_eq!(picture(output).dimensions(), (10, 1));
}

#[test]
fn the_cameras_orientation_is_applied() {
    let upright = picture(plain(Thumbnail, image("turned.jpg")).unwrap());
    assert_eq!(upright.dimensions(), (64, 96));
    let [_, _, blue, _] = upright.get_pixel(60, 5).0;
    assert!(blue > 200, "the blue quarter has moved to the top right");
}

#[test]
fn transparency_stays_in_png_and_becomes_white_in_jpeg() {
    let png = picture(plain(Thumbnail, image("transparent.png")).unwrap());
    assert_eq!((png.get_pixel(90, 30).0[3], png.get_pixel(5, 30).0[3]), (0, 255));
    let jpeg = picture(with(Thumbnail, json!({ "format": "JPG" }), image("transparent.png")).unwrap());
    assert!(jpeg.get_pixel(90, 30).0[..3].iter().all(|&colour| colour > 245), "{:?}", jpeg.get_pixel(90, 30));
}

#[test]
fn a_header_that_asks_for_gigabytes_is_refused() {
    let error = plain(Thumbnail, image("bomb.png")).unwrap_err();
    assert_eq!(error.code(), "media_too_large");
    assert!(error.to_string().contains("image_pixels_max = 50000000"), "{error}");
    // Even where the number of pixels is allowed, the memory is not.
    let limits = Limits { image_pixels_max: u64::MAX, ..Limits::default() };
    let error = run(Thumbnail, &Map::new(), Source::from_bytes(image("bomb.png").into()), &limits, &mut never);
    let error = error.unwrap_err();
    assert_eq!(error.code(), "media_too_large");
    assert!(error.to_string().contains("image_memory_max_bytes"), "{error}");
}

#[test]
fn images_are_probed_without_being_decoded() {
    for (name, format) in [("picture.png", "png"), ("picture.jpg", "jpeg"), ("picture.webp", "webp")] {
        let result = plain(Probe, image(name)).unwrap().result;
        assert_eq!(
            (&result["kind"], &result["format"], &result["width"], &result["height"]),
            (&json!("image"), &json!(format), &json!(96), &json!(64)),
            "{name}"
        );
    }
    assert_eq!(plain(Probe, image("bomb.png")).unwrap().result["width"], json!(30_000));
}

#[test]
fn a_cut_image_is_not_half_a_thumbnail() {
    for name in IMAGES {
        let whole = image(name);
        let code = code(plain(Thumbnail, whole[..whole.len() * 2 / 3].to_vec()));
        assert!(["truncated_media", "corrupt_media"].contains(&code), "{name}: {code}");
    }
}

#[test]
fn sound_and_images_are_not_taken_for_each_other() {
    let error = plain(Thumbnail, audio("speech.wav")).unwrap_err();
    assert_eq!(error.code(), "unsupported_media");
    assert!(error.to_string().contains("wav audio for thumbnail"), "{error}");
    for task in crate::support::AUDIO_TASKS {
        let error = plain(*task, image("picture.webp")).unwrap_err();
        assert_eq!(error.code(), "unsupported_media");
        assert!(error.to_string().contains("a webp image"), "{error}");
    }
}
