//! Execution providers and load options: what runs a model's operators, and in which precision.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::Deserialize;

/// An execution provider, by ONNX Runtime's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Provider {
    /// ONNX Runtime's own CPU kernels.
    #[default]
    Cpu,
    /// Intel's OpenVINO, on the CPU.
    OpenVino,
    /// NVIDIA's cuDNN and cuBLAS, on a GPU.
    Cuda,
    /// NVIDIA's TensorRT, on a GPU.
    TensorRt,
    /// XNNPACK, on the CPU.
    Xnnpack,
}

impl Provider {
    /// All providers.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::OpenVino, Self::Cuda, Self::TensorRt, Self::Xnnpack];

    /// Its name in settings and responses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::OpenVino => "openvino",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::Xnnpack => "xnnpack",
        }
    }

    /// Whether it runs on a GPU and needs hardly any CPU time.
    pub fn on_gpu(self) -> bool {
        matches!(self, Self::Cuda | Self::TensorRt)
    }

    /// Whether it can compute a model of 32-bit floats in reduced precision.
    pub fn supports_reduced_precision(self) -> bool {
        matches!(self, Self::OpenVino | Self::TensorRt)
    }

    /// Instructions for getting a library with this provider.
    pub fn install_hint(self) -> &'static str {
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

/// The name is not one of a provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no provider {0:?}; there are {all}", all = join_names(&Provider::ALL))]
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

/// The names of `providers`, separated by commas.
pub fn join_names(providers: &[Provider]) -> String {
    providers.iter().map(|provider| provider.name()).collect::<Vec<_>>().join(", ")
}

/// The precision in which a model of 32-bit floats is computed, if the provider supports several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits, as in the file.
    #[default]
    F32,
    /// 16 bits with the range of 32: twice as fast if the CPU has instructions for it.
    Bf16,
    /// 16 bits as defined by IEEE 754.
    F16,
}

impl Precision {
    /// Its name in settings and responses.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

/// Level of graph optimization before a model runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GraphOptimization {
    /// All optimizations, including memory layouts.
    #[default]
    All,
    /// Fusions of operators for which the provider has kernels.
    Extended,
    /// Optimizations that hold for every provider: constant folding, removal of redundant operators.
    Basic,
    /// No optimizations.
    None,
}

impl GraphOptimization {
    /// All levels.
    pub const ALL: [Self; 4] = [Self::All, Self::Extended, Self::Basic, Self::None];

    /// Its name in settings and responses.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Extended => "extended",
            Self::Basic => "basic",
            Self::None => "none",
        }
    }
}

/// Options for opening a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// Threads per run of the first instance.
    pub threads: usize,
    /// The execution provider.
    pub provider: Provider,
    /// The precision, if the provider supports several.
    pub precision: Precision,
    /// The level of graph optimization.
    pub optimization: GraphOptimization,
}

impl LoadOptions {
    /// Options for the CPU with `threads` threads and defaults otherwise.
    pub fn for_cpu(threads: usize) -> Self {
        Self {
            threads,
            provider: Provider::Cpu,
            precision: Precision::default(),
            optimization: GraphOptimization::default(),
        }
    }
}
