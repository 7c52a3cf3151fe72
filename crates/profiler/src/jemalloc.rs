//! jemalloc's profiling: on from the start, and dumped when asked.
#![allow(unsafe_code, reason = "jemalloc is C")]

use std::{
    ffi::{CStr, CString, c_char},
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use crate::error::ProfileError;

/// Read by jemalloc before the program begins: note one allocation in 512 KiB, from the start on. What is asked for in
/// `MALLOC_CONF` goes before it.
// SAFETY: the symbol is jemalloc's, which expects a text that ends with a zero.
#[unsafe(export_name = "malloc_conf")]
static OPTIONS: Options = Options(c"prof:true,prof_active:true,lg_prof_sample:19,prof_final:false".as_ptr());

/// A pointer to a constant text.
#[repr(transparent)]
struct Options(*const c_char);

// SAFETY: a constant that nobody writes to.
unsafe impl Sync for Options {}

/// jemalloc's account of what is held, as text.
pub(crate) fn dump() -> Result<String, ProfileError> {
    if !flag(c"opt.prof") || !flag(c"prof.active") {
        return Err(ProfileError::Off);
    }
    let mut file = in_memory()?;
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(io::Error::other)?;
    let mut pointer = path.as_ptr();
    // SAFETY: asks for nothing, and passes a pointer to a text that ends with a zero and outlives the call.
    let result = unsafe {
        tikv_jemalloc_sys::mallctl(
            c"prof.dump".as_ptr(),
            ptr::null_mut(),
            ptr::null_mut(),
            (&raw mut pointer).cast(),
            size_of::<*const c_char>(),
        )
    };
    match result {
        0 => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(text)
        }
        error => Err(io::Error::from_raw_os_error(error).into()),
    }
}

/// A file that lies in no folder: a container may have none to write to.
fn in_memory() -> io::Result<File> {
    // SAFETY: the name ends with a zero; a new descriptor comes back, or -1.
    match unsafe { libc::memfd_create(c"heap profile".as_ptr(), libc::MFD_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the descriptor is new and nobody else's.
        new => Ok(unsafe { OwnedFd::from_raw_fd(new) }.into()),
    }
}

fn flag(name: &CStr) -> bool {
    let (mut value, mut size) = (false, size_of::<bool>());
    // SAFETY: the name ends with a zero; a bool and its size are written, or nothing.
    let result =
        unsafe { tikv_jemalloc_sys::mallctl(name.as_ptr(), (&raw mut value).cast(), &mut size, ptr::null_mut(), 0) };
    result == 0 && value
}
