//! Which encoder makes the frames: hardware where it works, else software, and how it is asked.

use std::{ffi::OsString, sync::Mutex};

use serde::Serialize;

use crate::{
    call::{Call, Heard},
    error::MediaError,
    guard::Reach,
    workshop::{Program, Workshop},
};

/// What frames become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VideoCodec {
    /// H.264.
    H264,
    /// H.265.
    Hevc,
    /// AV1.
    Av1,
    /// VP9.
    Vp9,
}

impl VideoCodec {
    /// Its name, as ffmpeg has it too.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Av1 => "av1",
            Self::Vp9 => "vp9",
        }
    }

    /// The quality where nobody says: what its software encoder holds for good and modest.
    fn quality(self) -> u8 {
        match self {
            Self::H264 => 23,
            Self::Hevc => 28,
            Self::Av1 => 35,
            Self::Vp9 => 31,
        }
    }
}

/// How an encoder is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    X264,
    X265,
    SvtAv1,
    Vpx,
    Nvenc,
    QuickSync,
    Vaapi,
}

/// An encoder that we know how to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encoder {
    pub(crate) name: &'static str,
    codec: VideoCodec,
    manner: Manner,
}

const fn encoder(name: &'static str, codec: VideoCodec, manner: Manner) -> Encoder {
    Encoder { name, codec, manner }
}

/// Those we know, for each codec the first that works is taken.
const ENCODERS: [Encoder; 14] = [
    encoder("h264_nvenc", VideoCodec::H264, Manner::Nvenc),
    encoder("h264_qsv", VideoCodec::H264, Manner::QuickSync),
    encoder("h264_vaapi", VideoCodec::H264, Manner::Vaapi),
    encoder("libx264", VideoCodec::H264, Manner::X264),
    encoder("hevc_nvenc", VideoCodec::Hevc, Manner::Nvenc),
    encoder("hevc_qsv", VideoCodec::Hevc, Manner::QuickSync),
    encoder("hevc_vaapi", VideoCodec::Hevc, Manner::Vaapi),
    encoder("libx265", VideoCodec::Hevc, Manner::X265),
    encoder("av1_nvenc", VideoCodec::Av1, Manner::Nvenc),
    encoder("av1_qsv", VideoCodec::Av1, Manner::QuickSync),
    encoder("av1_vaapi", VideoCodec::Av1, Manner::Vaapi),
    encoder("libsvtav1", VideoCodec::Av1, Manner::SvtAv1),
    encoder("vp9_vaapi", VideoCodec::Vp9, Manner::Vaapi),
    encoder("libvpx-vp9", VideoCodec::Vp9, Manner::Vpx),
];

/// The device that VA-API is asked on.
const RENDER_NODE: &str = "/dev/dri/renderD128";

/// Which encoders may be taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// Hardware where it works, else software.
    #[default]
    Any,
    /// Software alone.
    Software,
    /// This one, by ffmpeg's name.
    Named(String),
}

/// What frames are encoded with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quality {
    /// What they become.
    pub codec: VideoCodec,
    /// Which encoders may make that.
    pub encoder: Choice,
    /// Less is better and larger; 0 to 51 (63 for AV1 and VP9). For hardware its nearest kin.
    pub crf: Option<u8>,
    /// The encoder's own name for how much time it takes.
    pub preset: Option<String>,
}

impl Encoder {
    pub(crate) fn is_hardware(&self) -> bool {
        matches!(self.manner, Manner::Nvenc | Manner::QuickSync | Manner::Vaapi)
    }

    /// Up to how many threads it uses well. Frames of libvpx are cut into few columns; those of others overlap in time.
    pub(crate) fn scales_to(&self) -> usize {
        if self.manner == Manner::Vpx { 4 } else { 8 }
    }

    /// Words before the inputs.
    pub(crate) fn device(&self) -> Vec<OsString> {
        match self.manner {
            Manner::Vaapi => ["-vaapi_device", RENDER_NODE].map(OsString::from).into(),
            _ => Vec::new(),
        }
    }

    /// The end of the chain of filters: pixels as the encoder takes them.
    pub(crate) fn pixels(&self) -> &'static str {
        match self.manner {
            Manner::Vaapi => "format=nv12,hwupload",
            Manner::QuickSync => "format=nv12",
            Manner::X265 | Manner::SvtAv1 => "format=pix_fmts=yuv420p|yuv420p10le",
            // 8 bits are what every player of H.264 shows.
            Manner::X264 | Manner::Nvenc | Manner::Vpx => "format=yuv420p",
        }
    }

    /// Words that make it encode; `joined` where its parts will be put together with others.
    pub(crate) fn words(&self, quality: &Quality, threads: usize, joined: bool) -> Vec<OsString> {
        let crf = quality.crf.unwrap_or(self.codec.quality()).to_string();
        let threads_word = threads.to_string();
        let mut words = vec!["-c:v", self.name, "-threads", &threads_word];
        let x265 = format!("log-level=error:pools={threads}");
        let svt = format!("lp={threads}");
        match self.manner {
            Manner::X264 => words.extend(["-crf", &crf]),
            Manner::X265 => words.extend(["-crf", &crf, "-tag:v", "hvc1", "-x265-params", &x265]),
            Manner::SvtAv1 => words.extend(["-crf", &crf, "-svtav1-params", &svt]),
            Manner::Vpx => words.extend(["-crf", &crf, "-b:v", "0", "-row-mt", "1", "-deadline", "good"]),
            Manner::Nvenc => words.extend(["-rc", "vbr", "-cq", &crf, "-b:v", "0"]),
            Manner::QuickSync => words.extend(["-global_quality", &crf]),
            Manner::Vaapi => words.extend(["-rc_mode", "CQP", "-qp", &crf]),
        }
        if joined && self.manner == Manner::X264 {
            // Headers that do not follow from the content, so that those of all parts are the same.
            words.extend(["-x264-params", "stitchable=1"]);
        }
        match (&quality.preset, self.manner) {
            (Some(preset), Manner::Vpx) => words.extend(["-cpu-used", preset]),
            (Some(preset), _) => words.extend(["-preset", preset]),
            (None, Manner::Vpx) => words.extend(["-cpu-used", "4"]),
            (None, _) => {}
        }
        words.into_iter().map(OsString::from).collect()
    }

    fn fits(&self, choice: &Choice) -> bool {
        match choice {
            Choice::Any => true,
            Choice::Software => !self.is_hardware(),
            Choice::Named(name) => name == self.name,
        }
    }
}

impl Quality {
    /// What cannot be, before ffmpeg is asked.
    ///
    /// # Errors
    /// [`MediaError::Order`].
    pub fn check(&self) -> Result<(), MediaError> {
        let most = if matches!(self.codec, VideoCodec::Av1 | VideoCodec::Vp9) { 63 } else { 51 };
        if let Some(crf) = self.crf.filter(|crf| *crf > most) {
            return Err(MediaError::Order(format!(
                "--crf {crf} is too much: for {} it is 0 to {most}",
                self.codec.name()
            )));
        }
        let is_word = |preset: &String| {
            (1..=16).contains(&preset.len()) && preset.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        if let Some(preset) = self.preset.as_ref().filter(|preset| !is_word(preset)) {
            return Err(MediaError::Order(format!(
                "--preset {preset:?} is none: they are words such as fast, p4 or 8"
            )));
        }
        if let Choice::Named(name) = &self.encoder {
            let mut of_codec =
                ENCODERS.iter().filter(|encoder| encoder.codec == self.codec).map(|encoder| encoder.name);
            if !of_codec.clone().any(|known| known == name) {
                let known = of_codec.by_ref().collect::<Vec<_>>().join(", ");
                let codec = self.codec.name();
                return Err(MediaError::Order(format!(
                    "--encoder {name:?} makes no {codec} here; those that do are {known}"
                )));
            }
        }
        Ok(())
    }
}

/// The encoder that was chosen, and what people should know of that.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) encoder: Encoder,
    pub(crate) note: Option<String>,
}

impl Workshop<'_> {
    /// The first encoder that ffmpeg lists and that makes a frame of this size: one is listed wherever ffmpeg was built
    /// with it, whether or not the machine has the device.
    pub(crate) fn choose(&self, quality: &Quality, width: u32, height: u32) -> Result<Chosen, MediaError> {
        let listed = self.listed()?;
        let known = ENCODERS.iter().filter(|encoder| encoder.codec == quality.codec);
        let mut refused: Vec<(&str, String)> = Vec::new();
        for encoder in known.filter(|encoder| encoder.fits(&quality.encoder)) {
            if !listed.iter().any(|name| name == encoder.name) {
                continue;
            }
            match self.try_out(encoder, quality, width, height) {
                Ok(()) => return Ok(Chosen { encoder: *encoder, note: note(encoder, &refused) }),
                Err(MediaError::Failed { said, .. }) => refused.push((encoder.name, said)),
                Err(MediaError::Killed { signal, .. }) => refused.push((encoder.name, format!("signal {signal}"))),
                Err(other) => return Err(other),
            }
        }
        let said = match refused.last() {
            Some((name, said)) => format!("{name} says: {said}"),
            None => "this ffmpeg was built without any".to_owned(),
        };
        Err(MediaError::NoEncoder { codec: quality.codec.name(), said })
    }

    fn listed(&self) -> Result<Vec<String>, MediaError> {
        let names = Mutex::new(Vec::new());
        self.ask(
            "listing encoders",
            ["-hide_banner", "-v", "error", "-encoders"].map(OsString::from).into(),
            false,
            &mut |line| {
                let mut words = line.split_whitespace();
                if words.next().is_some_and(|flags| flags.starts_with('V') && flags.len() == 6) {
                    names.lock().expect("no thread panics while it holds this").extend(words.next().map(str::to_owned));
                }
            },
        )?;
        Ok(names.into_inner().expect("no thread panics while it holds this"))
    }

    fn try_out(&self, encoder: &Encoder, quality: &Quality, width: u32, height: u32) -> Result<(), MediaError> {
        let mut arguments: Vec<OsString> = ["-hide_banner", "-v", "error"].map(OsString::from).into();
        arguments.extend(encoder.device());
        let picture = format!("color=black:size={width}x{height}:rate=25");
        arguments
            .extend(["-f", "lavfi", "-i", &picture, "-frames:v", "1", "-vf", encoder.pixels()].map(OsString::from));
        arguments.extend(encoder.words(quality, 1, false));
        arguments.extend(["-f", "null", "-"].map(OsString::from));
        self.ask(&format!("trying {}", encoder.name), arguments, encoder.is_hardware(), &mut |_| {})
    }

    fn ask(
        &self,
        what: &str,
        arguments: Vec<OsString>,
        devices: bool,
        hear: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), MediaError> {
        let reach = Reach { devices, ..Reach::default() };
        let call =
            Call { what: what.to_owned(), program: Program::Ffmpeg, arguments, reach, folder: None, abort: None };
        call.run(self, &mut |line| {
            hear(line);
            Heard::Progress
        })?;
        Ok(())
    }
}

/// Hardware that is listed and does not work is worth a word only if nobody asked for software.
fn note(encoder: &Encoder, refused: &[(&str, String)]) -> Option<String> {
    let names: Vec<&str> = refused.iter().map(|(name, _)| *name).collect();
    (!names.is_empty()).then(|| format!("{}: no device for {}", encoder.name, names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quality(codec: VideoCodec) -> Quality {
        Quality { codec, encoder: Choice::Any, crf: None, preset: None }
    }

    fn refuses(quality: Quality, words: &str) {
        let said = quality.check().unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    }

    #[test]
    fn orders_that_cannot_be_are_refused_before_ffmpeg_sees_them() {
        refuses(Quality { crf: Some(52), ..quality(VideoCodec::H264) }, "0 to 51");
        assert!(Quality { crf: Some(52), ..quality(VideoCodec::Av1) }.check().is_ok());
        refuses(Quality { preset: Some("fast:threads=9".into()), ..quality(VideoCodec::H264) }, "none");
        refuses(Quality { preset: Some(String::new()), ..quality(VideoCodec::H264) }, "none");
        refuses(Quality { encoder: Choice::Named("libx265".into()), ..quality(VideoCodec::H264) }, "libx264");
        assert!(Quality { encoder: Choice::Named("libx264".into()), ..quality(VideoCodec::H264) }.check().is_ok());
    }

    #[test]
    fn every_codec_has_software_behind_its_hardware() {
        for codec in [VideoCodec::H264, VideoCodec::Hevc, VideoCodec::Av1, VideoCodec::Vp9] {
            let of_codec: Vec<_> = ENCODERS.iter().filter(|encoder| encoder.codec == codec).collect();
            assert!(!of_codec.last().unwrap().is_hardware(), "{codec:?}");
            assert_eq!(of_codec.iter().filter(|encoder| !encoder.is_hardware()).count(), 1);
        }
    }

    #[test]
    fn threads_and_quality_are_said() {
        let words = ENCODERS[3].words(
            &Quality { crf: Some(18), preset: Some("fast".into()), ..quality(VideoCodec::H264) },
            4,
            true,
        );
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words.join(" "), "-c:v libx264 -threads 4 -crf 18 -x264-params stitchable=1 -preset fast");
    }
}
