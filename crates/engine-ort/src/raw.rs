//! Calls of ONNX Runtime's C API on the hot path, with owned handles.
//!
//! `ort` opens libraries and sessions; runs call the C API directly, because `ort` requires exclusive access to a
//! session during a run, which would forbid sharing one, and converts every name on every run. The C API allows
//! concurrent `Run` calls on one session (onnxruntime_c_api.h, OrtApi::Run).

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    marker::PhantomData,
    path::Path,
    ptr,
    sync::{Arc, Mutex, PoisonError},
};

use caudal_types::{DType, TensorView};
use ort::{
    AsPointer,
    environment::Environment,
    session::{Session, SharedSessionInner},
    sys::{self, ONNXTensorElementDataType as Element},
};

type Result<T> = std::result::Result<T, String>;

fn check_status(status: sys::OrtStatusPtr) -> Result<()> {
    // SAFETY: the status was returned by an OrtApi call just now and is given up here.
    unsafe { ort::Error::result_from_status(status) }.map_err(|error| error.message().to_owned())
}

/// Gives `environment` one arena for the activations of all sessions. Memory that one run frees is available to the
/// next, whichever session it belongs to: sessions of one model, and models that run in turn, need it only once. The
/// arena takes at most `max_bytes` from the system, if given: a run that needs more fails.
pub(crate) fn share_arena(environment: &Environment, max_bytes: Option<u64>) -> Result<()> {
    let memory = CpuMemory::new(sys::OrtAllocatorType::OrtArenaAllocator)?;
    let mut arena = ptr::null_mut();
    let max_bytes = max_bytes.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX).max(1));
    // SAFETY: 0 means no limit, and -1 asks for the library's own choices; the call writes a pointer to a new
    // description, or an error and nothing.
    check_status(unsafe { (ort::api().CreateArenaCfg)(max_bytes, -1, -1, -1, &mut arena) })?;
    // SAFETY: the environment, the memory's and the arena's description are alive; the call copies what it needs.
    let registered = check_status(unsafe {
        (ort::api().CreateAndRegisterAllocator)(environment.ptr().cast_mut(), memory.0.as_ptr(), arena)
    });
    // SAFETY: the description was made above and is not used any more.
    unsafe { (ort::api().ReleaseArenaCfg)(arena) };
    registered
}

/// Statistics of the shared arena, read through a session without other purpose, because the environment does not
/// expose the arena that was registered with it.
pub(crate) struct ArenaGauge {
    allocator: ptr::NonNull<sys::OrtAllocator>,
    session: Mutex<Session>,
}

// SAFETY: the allocator is the shared arena, which is made for many sessions on many threads; asking for its statistics
// takes its lock.
unsafe impl Send for ArenaGauge {}
// SAFETY: see above.
unsafe impl Sync for ArenaGauge {}

impl ArenaGauge {
    /// A gauge of the arena that `session` uses.
    pub(crate) fn new(session: Session) -> Result<Self> {
        let memory = CpuMemory::new(sys::OrtAllocatorType::OrtArenaAllocator)?;
        let mut allocator = ptr::null_mut();
        // SAFETY: the session and the memory's description are alive; the call writes a pointer to a new handle on the
        // session's allocator, or an error and nothing.
        check_status(unsafe { (ort::api().CreateAllocator)(session.ptr(), memory.0.as_ptr(), &mut allocator) })?;
        let allocator = ptr::NonNull::new(allocator).ok_or_else(|| "the arena was not found".to_owned())?;
        Ok(Self { allocator, session: Mutex::new(session) })
    }

    /// Bytes that the arena has allocated from the system for runs; weights are not included.
    pub(crate) fn allocated_bytes(&self) -> Option<u64> {
        let mut stats = ptr::null_mut();
        // SAFETY: the allocator lives as long as self; the call writes a pointer to new pairs, or an error and nothing.
        check_status(unsafe { (ort::api().AllocatorGetStats)(self.allocator.as_ptr(), &mut stats) }).ok()?;
        let stats = ptr::NonNull::new(stats)?;
        // SAFETY: the pairs were made above; the key ends with a zero. What comes back belongs to the pairs.
        let value = unsafe { (ort::api().GetKeyValue)(stats.as_ptr(), c"TotalAllocated".as_ptr()) };
        // SAFETY: a value that is there ends with a zero and lives as long as the pairs.
        let text = (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) });
        let bytes = text.and_then(|text| text.to_str().ok()?.parse().ok());
        // SAFETY: the pairs were made above and are not used any more.
        unsafe { (ort::api().ReleaseKeyValuePairs)(stats.as_ptr()) }
        bytes
    }
}

impl ArenaGauge {
    /// Returns unused memory to the system. The library does so at the end of a run with this option, so one is made.
    pub(crate) fn release_unused(&self) -> Result<()> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut run = || -> ort::Result<()> {
            let mut options = ort::session::RunOptions::new()?;
            options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
            let number = ort::value::Tensor::from_array(([1usize], vec![0f32]))?;
            session.run_with_options(ort::inputs![number], &options).map(drop)
        };
        run().map_err(|error| error.message().to_owned())
    }
}

impl Drop for ArenaGauge {
    fn drop(&mut self) {
        // SAFETY: we own the handle, not the arena behind it, and it is not used after this.
        unsafe { (ort::api().ReleaseAllocator)(self.allocator.as_ptr()) }
    }
}

/// A session that several threads may run concurrently.
#[derive(Clone)]
pub(crate) struct SharedSession {
    inner: Arc<SharedSessionInner>,
    input_names: Arc<[CString]>,
    output_names: Arc<[CString]>,
}

impl SharedSession {
    pub(crate) fn new(session: &Session) -> Result<Self> {
        let names = |outlets: &[ort::value::Outlet]| {
            outlets
                .iter()
                .map(|outlet| CString::new(outlet.name()).map_err(|e| e.to_string()))
                .collect::<Result<Arc<[CString]>>>()
        };
        Ok(Self {
            inner: session.inner(),
            input_names: names(session.inputs())?,
            output_names: names(session.outputs())?,
        })
    }
}

/// Number of operators of `session` that ONNX Runtime assigned to its own CPU kernels; the session must have recorded
/// the assignment.
pub(crate) fn count_cpu_fallbacks(session: &Session) -> Result<usize> {
    let api = ort::api();
    let (mut parts, mut count) = (ptr::null(), 0);
    // SAFETY: the session is alive; the call writes an array and its length, which live as long as the session, or an
    // error and nothing.
    check_status(unsafe { (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &mut parts, &mut count) })?;
    let mut left = 0;
    for i in 0..count {
        // SAFETY: the array is `count` long, as the call above said.
        let part = unsafe { *parts.add(i) };
        let mut name = ptr::null();
        // SAFETY: the part is alive; the call writes a text that lives as long as the part, or an error and nothing.
        check_status(unsafe { (api.EpAssignedSubgraph_GetEpName)(part, &mut name) })?;
        // SAFETY: the text was written by the call above and ends with a zero.
        if unsafe { CStr::from_ptr(name) }.to_bytes() == b"CPUExecutionProvider" {
            let (mut nodes, mut length) = (ptr::null(), 0);
            // SAFETY: as for the parts.
            check_status(unsafe { (api.EpAssignedSubgraph_GetNodes)(part, &mut nodes, &mut length) })?;
            left += length;
        }
    }
    Ok(left)
}

/// The level at which ONNX Runtime logs what ends the process, and nothing else.
const FATAL: c_int = sys::OrtLoggingLevel::ORT_LOGGING_LEVEL_FATAL as c_int;

/// Options of a run, through which other threads can interrupt it.
pub(crate) struct RunOptions(ptr::NonNull<sys::OrtRunOptions>);

// SAFETY: OrtRunOptions holds a terminate flag that ONNX Runtime reads during a run and that any thread may
// set meanwhile; that is its documented use. Nothing else of it is changed after creation.
unsafe impl Send for RunOptions {}
// SAFETY: see above.
unsafe impl Sync for RunOptions {}

impl RunOptions {
    pub(crate) fn new() -> Result<Self> {
        let mut options = ptr::null_mut();
        // SAFETY: the call writes a pointer to new options, or an error and nothing.
        check_status(unsafe { (ort::api().CreateRunOptions)(&mut options) })?;
        let options = ptr::NonNull::new(options).map(Self).ok_or_else(|| "no run options were made".to_owned())?;
        // What fails comes back as an error. ONNX Runtime would log it as well, with values of the inputs.
        // SAFETY: the options were made above.
        check_status(unsafe { (ort::api().RunOptionsSetRunLogSeverityLevel)(options.0.as_ptr(), FATAL) })?;
        Ok(options)
    }

    pub(crate) fn set_stopped(&self, stopped: bool) {
        let api = ort::api();
        let set = if stopped { api.RunOptionsSetTerminate } else { api.RunOptionsUnsetTerminate };
        // SAFETY: the options live as long as self. Neither call can fail for valid options.
        let _ = check_status(unsafe { set(self.0.as_ptr()) });
    }
}

impl Drop for RunOptions {
    fn drop(&mut self) {
        // SAFETY: we own the options and they are not used after this.
        unsafe { (ort::api().ReleaseRunOptions)(self.0.as_ptr()) }
    }
}

/// Description of ordinary CPU memory.
struct CpuMemory(ptr::NonNull<sys::OrtMemoryInfo>);

impl CpuMemory {
    fn new(kind: sys::OrtAllocatorType) -> Result<Self> {
        let mut info = ptr::null_mut();
        let place = sys::OrtMemType::OrtMemTypeDefault;
        // SAFETY: the call writes a pointer to a new description, or an error and nothing.
        check_status(unsafe { (ort::api().CreateCpuMemoryInfo)(kind, place, &mut info) })?;
        ptr::NonNull::new(info).map(Self).ok_or_else(|| "no memory description was made".to_owned())
    }
}

impl Drop for CpuMemory {
    fn drop(&mut self) {
        // SAFETY: we own the description and it is not used after this.
        unsafe { (ort::api().ReleaseMemoryInfo)(self.0.as_ptr()) }
    }
}

/// A tensor of ONNX Runtime; `'a` is the lifetime of borrowed memory.
struct OrtTensor<'a>(ptr::NonNull<sys::OrtValue>, PhantomData<&'a [u8]>);

impl Drop for OrtTensor<'_> {
    fn drop(&mut self) {
        // SAFETY: we own the value and it is not used after this.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) }
    }
}

impl<'a> OrtTensor<'a> {
    /// A tensor that borrows the bytes of `view`; ONNX Runtime does not write to inputs.
    fn from_view(view: TensorView<'a>, memory: &CpuMemory) -> Result<Self> {
        let dims: Vec<i64> = view.shape.iter().map(|dim| *dim as i64).collect();
        let element = to_element(view.dtype).ok_or("strings cannot be given as bytes")?;
        let mut value = ptr::null_mut();
        // SAFETY: pointer, length and dimensions describe memory that lives for 'a, which the value does not
        // outlive; ONNX Runtime checks the length against dimensions and type, and does not write to inputs.
        check_status(unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                memory.0.as_ptr(),
                view.bytes.as_ptr().cast_mut().cast::<c_void>(),
                view.bytes.len(),
                dims.as_ptr(),
                dims.len(),
                element,
                &mut value,
            )
        })?;
        Self::from_raw(value)
    }

    fn from_raw(value: *mut sys::OrtValue) -> Result<Self> {
        ptr::NonNull::new(value).map(|value| Self(value, PhantomData)).ok_or_else(|| "no tensor was made".to_owned())
    }

    /// Type and dimensions.
    fn type_and_shape(&self) -> Result<(DType, Vec<usize>)> {
        let api = ort::api();
        let mut info = ptr::null_mut();
        // SAFETY: the value is alive; the call writes a new description, or an error and nothing.
        check_status(unsafe { (api.GetTensorTypeAndShape)(self.0.as_ptr(), &mut info) })?;
        let read = || {
            let (mut element, mut rank) = (Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED, 0);
            // SAFETY: the description is alive until it is released below.
            check_status(unsafe { (api.GetTensorElementType)(info, &mut element) })?;
            // SAFETY: as above.
            check_status(unsafe { (api.GetDimensionsCount)(info, &mut rank) })?;
            let mut dims = vec![0i64; rank];
            // SAFETY: as above, and `dims` has room for `rank` numbers.
            check_status(unsafe { (api.GetDimensions)(info, dims.as_mut_ptr(), rank) })?;
            let dtype = from_element(element).ok_or("an output has a type that is not supported")?;
            Ok((dtype, dims.into_iter().map(|dim| dim.max(0) as usize).collect()))
        };
        let shape = read();
        // SAFETY: the description was made above and is not used any more.
        unsafe { (api.ReleaseTensorTypeAndShapeInfo)(info) };
        shape
    }

    fn element_bytes(&self, length: usize) -> Result<&[u8]> {
        let mut data = ptr::null_mut();
        // SAFETY: the value is alive; the call writes where its elements begin.
        check_status(unsafe { (ort::api().GetTensorMutableData)(self.0.as_ptr(), &mut data) })?;
        if length == 0 {
            return Ok(&[]);
        }
        // SAFETY: the elements are dense, `length` bytes long as their type and dimensions say, and live as
        // long as the value, which self borrows; they are not written to after the run.
        Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) })
    }
}

/// Runs successive batches on a session.
pub(crate) struct SessionRunner {
    session: SharedSession,
    memory: CpuMemory,
    options: Arc<RunOptions>,
    input_names: Vec<*const c_char>,
    output_names: Vec<*const c_char>,
}

// SAFETY: the raw pointers point into names that the session keeps alive and does not change; the memory
// description is only read. A runner is used by one thread at a time (its methods want exclusive access).
unsafe impl Send for SessionRunner {}

impl SessionRunner {
    pub(crate) fn new(session: SharedSession) -> Result<Self> {
        let pointers = |names: &[CString]| names.iter().map(|name| name.as_ptr()).collect();
        Ok(Self {
            memory: CpuMemory::new(sys::OrtAllocatorType::OrtDeviceAllocator)?,
            options: Arc::new(RunOptions::new()?),
            input_names: pointers(&session.input_names),
            output_names: pointers(&session.output_names),
            session,
        })
    }

    pub(crate) fn run_options(&self) -> Arc<RunOptions> {
        Arc::clone(&self.options)
    }

    /// Runs `inputs` and passes the outputs to `take`.
    pub(crate) fn run_batch(
        &mut self,
        inputs: &[TensorView<'_>],
        take: &mut dyn FnMut(&[TensorView<'_>]),
    ) -> Result<()> {
        if inputs.len() != self.input_names.len() {
            return Err(format!("the model takes {} inputs, not {}", self.input_names.len(), inputs.len()));
        }
        let values: Vec<OrtTensor<'_>> =
            inputs.iter().map(|view| OrtTensor::from_view(*view, &self.memory)).collect::<Result<_>>()?;
        let given: Vec<*const sys::OrtValue> = values.iter().map(|value| value.0.as_ptr().cast_const()).collect();
        let mut made = vec![ptr::null_mut(); self.output_names.len()];
        // SAFETY: names and values are as many as said and alive during the call; the session may be run by
        // several threads at once; null outputs ask ONNX Runtime to make them.
        let status = unsafe {
            (ort::api().Run)(
                self.session.inner.ptr().cast_mut(),
                self.options.0.as_ptr(),
                self.input_names.as_ptr(),
                given.as_ptr(),
                given.len(),
                self.output_names.as_ptr(),
                made.len(),
                made.as_mut_ptr(),
            )
        };
        check_status(status)?;
        let outputs: Vec<OrtTensor<'_>> = made.into_iter().map(OrtTensor::from_raw).collect::<Result<_>>()?;
        let shapes = outputs.iter().map(OrtTensor::type_and_shape).collect::<Result<Vec<_>>>()?;
        let views = outputs.iter().zip(&shapes).map(|(value, (dtype, shape))| {
            let count = caudal_types::element_count(shape).ok_or("an output is too large")?;
            Ok(TensorView { dtype: *dtype, shape, bytes: value.element_bytes(count * dtype.size())? })
        });
        take(&views.collect::<Result<Vec<_>>>()?);
        Ok(())
    }
}

const ELEMENT_TYPES: [(DType, Element); 13] = [
    (DType::Bool, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL),
    (DType::U8, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8),
    (DType::U16, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16),
    (DType::U32, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32),
    (DType::U64, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64),
    (DType::I8, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8),
    (DType::I16, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16),
    (DType::I32, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32),
    (DType::I64, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64),
    (DType::F16, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16),
    (DType::BF16, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16),
    (DType::F32, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT),
    (DType::F64, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE),
];

fn to_element(dtype: DType) -> Option<Element> {
    ELEMENT_TYPES.iter().find(|(ours, _)| *ours == dtype).map(|(_, theirs)| *theirs)
}

fn from_element(element: Element) -> Option<DType> {
    ELEMENT_TYPES.iter().find(|(_, theirs)| *theirs == element).map(|(ours, _)| *ours)
}

/// The version of the library at `path`, which is already loaded.
pub(crate) fn library_version(path: &Path) -> Option<String> {
    // SAFETY: the library is loaded, so no initialisation code runs; the handle is closed again at the end.
    let library = unsafe { libloading::Library::new(path) }.ok()?;
    // SAFETY: the library is ONNX Runtime, checked at load, and this is the type of that function.
    let base = unsafe { library.get::<unsafe extern "C" fn() -> *const sys::OrtApiBase>(b"OrtGetApiBase") }.ok()?;
    // SAFETY: the function has no conditions; what it returns lives as long as the library, and so does the
    // text, which is copied here.
    unsafe {
        let version = ((*base()).GetVersionString)();
        CStr::from_ptr(version).to_str().ok().map(str::to_owned)
    }
}
