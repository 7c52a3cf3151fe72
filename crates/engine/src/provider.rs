//! Who runs a model's operators, and how exactly: what a model may ask of a backend beside its file.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::Deserialize;

/// What runs the operators of a model, by ONNX Runtime's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Provider {
    /// ONNX Runtime's own kernels on the processor.
    #[default]
    Cpu,
    /// Intel's OpenVINO, on the processor.
    OpenVino,
    /// NVIDIA's cuDNN and cuBLAS, on a graphics card.
    Cuda,
    /// NVIDIA's TensorRT, on a graphics card.
    TensorRt,
    /// XNNPACK, on the processor.
    Xnnpack,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::OpenVino, Self::Cuda, Self::TensorRt, Self::Xnnpack];

    /// Its name in settings and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::OpenVino => "openvino",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::Xnnpack => "xnnpack",
        }
    }

    /// Whether its runs take a graphics card, and next to nothing of the processor's cores.
    pub fn on_gpu(self) -> bool {
        matches!(self, Self::Cuda | Self::TensorRt)
    }

    /// Whether it can compute a model of 32-bit floats in shorter ones.
    pub fn has_precisions(self) -> bool {
        matches!(self, Self::OpenVino | Self::TensorRt)
    }

    /// Where one gets a library that has it.
    pub fn origin(self) -> &'static str {
        match self {
            Self::Cpu => "every library has it",
            Self::OpenVino => {
                "`cargo xtask setup openvino` fetches a library that has it, to be named by onnxruntime_library"
            }
            Self::Cuda | Self::TensorRt => {
                "the wheel onnxruntime-gpu of PyPI holds a library that has it, to be named by onnxruntime_library"
            }
            Self::Xnnpack => {
                "an ONNX Runtime built with --use_xnnpack has it; its library is to be named by onnxruntime_library"
            }
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no provider of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no provider {0:?}; there are {all}", all = names(&Provider::ALL))]
pub struct UnknownProvider(String);

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(name: &str) -> Result<Self, UnknownProvider> {
        let found = Self::ALL.into_iter().find(|provider| provider.name() == name);
        found.ok_or_else(|| UnknownProvider(caudal_types::shorten(name).into_owned()))
    }
}

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The names of `providers`, for a sentence.
pub fn names(providers: &[Provider]) -> String {
    providers.iter().map(|provider| provider.name()).collect::<Vec<_>>().join(", ")
}

/// The numbers that a model of 32-bit floats is computed in, where the provider leaves a choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits, as in the file.
    #[default]
    F32,
    /// 16 bits with the range of 32: twice as fast where the processor has instructions for it.
    Bf16,
    /// 16 bits, IEEE's.
    F16,
}

impl Precision {
    /// Its name in settings and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

/// How far a graph is rewritten before it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GraphOptimization {
    /// Everything: layouts too.
    #[default]
    All,
    /// Fusions of operators that the provider has kernels for.
    Extended,
    /// What holds for every provider: constants folded, the needless removed.
    Basic,
    /// Nothing.
    None,
}

impl GraphOptimization {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::All, Self::Extended, Self::Basic, Self::None];

    /// Its name in settings and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Extended => "extended",
            Self::Basic => "basic",
            Self::None => "none",
        }
    }
}

/// How a model is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// Threads of the first instance within one run.
    pub threads: usize,
    /// Who runs it.
    pub provider: Provider,
    /// In which numbers, where the provider leaves a choice.
    pub precision: Precision,
    /// How far its graph is rewritten.
    pub optimization: GraphOptimization,
}

impl LoadOptions {
    /// On the processor with `threads` threads, everything else as usual.
    pub fn cpu(threads: usize) -> Self {
        Self {
            threads,
            provider: Provider::Cpu,
            precision: Precision::default(),
            optimization: GraphOptimization::default(),
        }
    }
}
