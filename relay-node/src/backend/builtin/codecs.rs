//! Names of containers and codecs, as results and messages use them.

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known as codec;
use symphonia::core::formats::FormatId;
use symphonia::core::formats::well_known as format;

use super::sniff::Container;

/// Which container a demuxer is for.
pub(super) fn container_of(id: FormatId) -> Option<Container> {
    [
        (format::FORMAT_ID_WAVE, Container::Wav),
        (format::FORMAT_ID_FLAC, Container::Flac),
        (format::FORMAT_ID_MP3, Container::Mp3),
        (format::FORMAT_ID_OGG, Container::Ogg),
        (format::FORMAT_ID_ISOMP4, Container::Mp4),
        (format::FORMAT_ID_ADTS, Container::Adts),
    ]
    .into_iter()
    .find(|&(known, _)| known == id)
    .map(|(_, container)| container)
}

/// A codec's short name: the decoder's own, or one of the codecs that are only known by name.
pub(super) fn name_of(params: &AudioCodecParameters) -> String {
    if let Some(known) = symphonia::default::get_codecs().get_audio_decoder(params.codec) {
        return known.codec.info.short_name.to_owned();
    }
    let known = [
        (codec::CODEC_ID_OPUS, "opus"),
        (codec::CODEC_ID_SPEEX, "speex"),
        (codec::CODEC_ID_ALAC, "alac"),
        (codec::CODEC_ID_AC3, "ac3"),
        (codec::CODEC_ID_EAC3, "eac3"),
        (codec::CODEC_ID_AC4, "ac4"),
        (codec::CODEC_ID_DCA, "dts"),
        (codec::CODEC_ID_MP1, "mp1"),
        (codec::CODEC_ID_MP2, "mp2"),
        (codec::CODEC_ID_WMA, "wma"),
        (codec::CODEC_ID_TRUEHD, "truehd"),
        (codec::CODEC_ID_WAVPACK, "wavpack"),
    ];
    let name = known.into_iter().find(|&(id, _)| id == params.codec).map(|(_, name)| name.to_owned());
    name.unwrap_or_else(|| "an unknown codec".to_owned())
}
