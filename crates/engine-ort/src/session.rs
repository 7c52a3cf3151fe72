//! Opens a model file and reads what it wants.

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

use crate::{provider, threads::Named};

/// Opens `file` as a session whose runs are as `options` say.
pub(crate) fn open(environment: &Environment, file: &Path, options: &LoadOptions) -> Result<Session, LoadError> {
    open_with(environment, file, options, Ok)
}

/// The same, after `more` has been said of it.
pub(crate) fn open_with(
    environment: &Environment,
    file: &Path,
    options: &LoadOptions,
    more: impl FnOnce(SessionBuilder) -> ort::Result<SessionBuilder>,
) -> Result<Session, LoadError> {
    let wanted = options.provider;
    let builder = || -> ort::Result<SessionBuilder> {
        let builder = Session::builder(environment)?
            .with_optimization_level(level(options.optimization))?
            .with_intra_threads(provider::session_threads(wanted, options.threads))?
            .with_inter_threads(1)?
            .with_thread_manager(Named)?
            .with_env_allocators()?
            .with_config_entry(
                "session.record_ep_graph_assignment_info",
                if wanted == Provider::Cpu { "0" } else { "1" },
            )?
            // Threads that spin for work look busy to the machine and steal from decoding and from sockets.
            .with_intra_op_spinning(false)?
            .with_execution_providers(provider::asked(options, options.threads))?;
        more(builder)
    };
    let opened = builder().and_then(|mut builder| builder.commit_from_file(file));
    opened.map_err(|error| match wanted {
        Provider::Cpu => unreadable(file, &error),
        _ => LoadError::Provider { wanted, file: file.display().to_string(), reason: said(&error) },
    })
}

/// Writes `file`, after the rewrites that hold on every machine, to `into`.
pub(crate) fn simplify(environment: &Environment, file: &Path, into: &Path) -> Result<(), LoadError> {
    let write = || -> ort::Result<Session> {
        Session::builder(environment)?
            .with_optimization_level(GraphOptimizationLevel::Level1)?
            .with_intra_threads(1)?
            .with_optimized_model_path(into)?
            .commit_from_file(file)
    };
    write().map(drop).map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &ort::Error) -> LoadError {
    LoadError::Unreadable { file: file.display().to_string(), reason: said(error) }
}

fn said(error: &ort::Error) -> String {
    error.message().lines().next().unwrap_or("it cannot be opened").to_owned()
}

/// A session that copies a number: 128 bytes of ONNX, one node, `Identity`.
pub(crate) fn probe(environment: &Environment) -> Result<Session, String> {
    let open = || -> ort::Result<Session> {
        Session::builder(environment)?
            .with_intra_threads(1)?
            .with_env_allocators()?
            .commit_from_memory(include_bytes!("probe.onnx"))
    };
    open().map_err(|error| error.message().to_owned())
}

fn level(optimization: GraphOptimization) -> GraphOptimizationLevel {
    match optimization {
        GraphOptimization::All => GraphOptimizationLevel::All,
        GraphOptimization::Extended => GraphOptimizationLevel::Level2,
        GraphOptimization::Basic => GraphOptimizationLevel::Level1,
        GraphOptimization::None => GraphOptimizationLevel::Disable,
    }
}

/// What the session takes and gives.
pub(crate) fn spec(session: &Session, file: &Path) -> Result<ModelSpec, LoadError> {
    let tensors = |outlets: &[Outlet]| outlets.iter().map(|outlet| tensor(outlet, file)).collect::<Result<Vec<_>, _>>();
    let mut spec =
        ModelSpec { inputs: tensors(session.inputs())?, outputs: tensors(session.outputs())?, ..Default::default() };
    if let Ok(metadata) = session.metadata() {
        for key in metadata.custom_keys().unwrap_or_default() {
            if let Some(value) = metadata.custom(&key) {
                spec.notes.insert(key, value);
            }
        }
    }
    Ok(spec)
}

fn tensor(outlet: &Outlet, file: &Path) -> Result<TensorSpec, LoadError> {
    let unsupported = |what: &str| LoadError::Unsupported {
        file: file.display().to_string(),
        reason: format!("{:?} is {what}", outlet.name()),
    };
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return Err(unsupported("a sequence or map, not a tensor"));
    };
    let dtype = dtype(*ty).ok_or_else(|| unsupported(&format!("a tensor of {ty:?}")))?;
    let dims = shape.iter().zip(dimension_symbols.iter()).map(|(length, symbol)| match usize::try_from(*length) {
        Ok(length) => Dim::Fixed(length),
        Err(_) => Dim::Free(symbol.clone()),
    });
    Ok(TensorSpec { name: outlet.name().to_owned(), dtype, dims: dims.collect() })
}

fn dtype(element: TensorElementType) -> Option<DType> {
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
