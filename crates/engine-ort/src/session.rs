//! Sessions: opening a model file and reading its specification.

use std::path::Path;

use caudal_engine::{Dim, GraphOptimization, LoadError, LoadOptions, ModelSpec, Provider, TensorSpec};
use caudal_types::DType;
use ort::{
    environment::Environment,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::{Outlet, TensorElementType, ValueType},
};

use crate::{provider, threads::NamedThreads};

/// Opens `file` as a session with `options`.
pub(crate) fn open_session(
    environment: &Environment,
    file: &Path,
    options: &LoadOptions,
) -> Result<Session, LoadError> {
    open_session_with(environment, file, options, Ok)
}

/// The same, with further settings by `more`.
pub(crate) fn open_session_with(
    environment: &Environment,
    file: &Path,
    options: &LoadOptions,
    more: impl FnOnce(SessionBuilder) -> ort::Result<SessionBuilder>,
) -> Result<Session, LoadError> {
    let wanted = options.provider;
    let builder = || -> ort::Result<SessionBuilder> {
        let builder = Session::builder(environment)?
            .with_optimization_level(optimization_level(options.optimization))?
            .with_intra_threads(provider::session_threads(wanted, options.threads))?
            .with_inter_threads(1)?
            .with_thread_manager(NamedThreads)?
            .with_env_allocators()?
            .with_config_entry(
                "session.record_ep_graph_assignment_info",
                if wanted == Provider::Cpu { "0" } else { "1" },
            )?
            // Spinning threads look busy to the machine and take time from decode and io threads.
            .with_intra_op_spinning(false)?
            .with_execution_providers(provider::execution_providers(options, options.threads))?;
        more(builder)
    };
    let opened = builder().and_then(|mut builder| builder.commit_from_file(file));
    opened.map_err(|error| match wanted {
        Provider::Cpu => unreadable_error(file, &error),
        _ => LoadError::Provider { wanted, file: file.display().to_string(), reason: first_line(&error) },
    })
}

/// Writes `file` to `into` after the optimizations that hold on every machine.
pub(crate) fn write_simplified(environment: &Environment, file: &Path, into: &Path) -> Result<(), LoadError> {
    let write = || -> ort::Result<Session> {
        Session::builder(environment)?
            .with_optimization_level(GraphOptimizationLevel::Level1)?
            .with_intra_threads(1)?
            .with_optimized_model_path(into)?
            .commit_from_file(file)
    };
    write().map(drop).map_err(|error| unreadable_error(file, &error))
}

fn unreadable_error(file: &Path, error: &ort::Error) -> LoadError {
    LoadError::Unreadable { file: file.display().to_string(), reason: first_line(error) }
}

fn first_line(error: &ort::Error) -> String {
    error.message().lines().next().unwrap_or("it cannot be opened").to_owned()
}

/// A session that copies a number: 128 bytes of ONNX, one node, `Identity`.
pub(crate) fn probe_session(environment: &Environment) -> Result<Session, String> {
    let open = || -> ort::Result<Session> {
        Session::builder(environment)?
            .with_intra_threads(1)?
            .with_env_allocators()?
            .commit_from_memory(include_bytes!("probe.onnx"))
    };
    open().map_err(|error| error.message().to_owned())
}

fn optimization_level(optimization: GraphOptimization) -> GraphOptimizationLevel {
    match optimization {
        GraphOptimization::All => GraphOptimizationLevel::All,
        GraphOptimization::Extended => GraphOptimizationLevel::Level2,
        GraphOptimization::Basic => GraphOptimizationLevel::Level1,
        GraphOptimization::None => GraphOptimizationLevel::Disable,
    }
}

/// The session's inputs and outputs.
pub(crate) fn read_spec(session: &Session, file: &Path) -> Result<ModelSpec, LoadError> {
    let tensors =
        |outlets: &[Outlet]| outlets.iter().map(|outlet| tensor_spec(outlet, file)).collect::<Result<Vec<_>, _>>();
    let mut spec =
        ModelSpec { inputs: tensors(session.inputs())?, outputs: tensors(session.outputs())?, ..Default::default() };
    if let Ok(metadata) = session.metadata() {
        for key in metadata.custom_keys().unwrap_or_default() {
            if let Some(value) = metadata.custom(&key) {
                spec.metadata.insert(key, value);
            }
        }
    }
    Ok(spec)
}

fn tensor_spec(outlet: &Outlet, file: &Path) -> Result<TensorSpec, LoadError> {
    let unsupported = |what: &str| LoadError::Unsupported {
        file: file.display().to_string(),
        reason: format!("{:?} is {what}", outlet.name()),
    };
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return Err(unsupported("a sequence or map, not a tensor"));
    };
    let dtype = element_dtype(*ty).ok_or_else(|| unsupported(&format!("a tensor of {ty:?}")))?;
    let dims = shape.iter().zip(dimension_symbols.iter()).map(|(length, symbol)| match usize::try_from(*length) {
        Ok(length) => Dim::Fixed(length),
        Err(_) => Dim::Free(symbol.clone()),
    });
    Ok(TensorSpec { name: outlet.name().to_owned(), dtype, dims: dims.collect() })
}

fn element_dtype(element: TensorElementType) -> Option<DType> {
    Some(match element {
        TensorElementType::Bool => DType::Bool,
        TensorElementType::Uint8 => DType::U8,
        TensorElementType::Uint16 => DType::U16,
        TensorElementType::Uint32 => DType::U32,
        TensorElementType::Uint64 => DType::U64,
        TensorElementType::Int8 => DType::I8,
        TensorElementType::Int16 => DType::I16,
        TensorElementType::Int32 => DType::I32,
        TensorElementType::Int64 => DType::I64,
        TensorElementType::Float16 => DType::F16,
        TensorElementType::Bfloat16 => DType::BF16,
        TensorElementType::Float32 => DType::F32,
        TensorElementType::Float64 => DType::F64,
        _ => return None,
    })
}
