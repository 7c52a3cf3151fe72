//! jemalloc's profiling: enabled from the start, dumped on request.
#![allow(unsafe_code, reason = "jemalloc is C")]

use std::{
    ffi::{CStr, CString, c_char},
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use crate::error::ProfileError;

/// Options that jemalloc reads before `main`: sample once per 512 KiB, from the start. The variable `MALLOC_CONF` takes
/// precedence.
// SAFETY: the symbol belongs to jemalloc, which expects a zero-terminated string.
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: ConfPointer =
    ConfPointer(c"prof:true,prof_active:true,lg_prof_sample:19,prof_final:false".as_ptr());

/// A pointer to a constant string.
#[repr(transparent)]
struct ConfPointer(*const c_char);

// SAFETY: a constant that is never written.
unsafe impl Sync for ConfPointer {}

/// jemalloc's dump of live allocations, as text.
pub(crate) fn dump_heap() -> Result<String, ProfileError> {
    if !read_flag(c"opt.prof") || !read_flag(c"prof.active") {
        return Err(ProfileError::Off);
    }
    let mut file = open_memfd()?;
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(io::Error::other)?;
    let mut pointer = path.as_ptr();
    // SAFETY: reads no value, and passes a pointer to a zero-terminated string that outlives the call.
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

/// Opens a file in memory, because a container may have no writable directory.
fn open_memfd() -> io::Result<File> {
    // SAFETY: the name is zero-terminated; the result is a new descriptor, or -1.
    match unsafe { libc::memfd_create(c"heap profile".as_ptr(), libc::MFD_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the descriptor is new and has no other owner.
        new => Ok(unsafe { OwnedFd::from_raw_fd(new) }.into()),
    }
}

fn read_flag(name: &CStr) -> bool {
    let (mut value, mut size) = (false, size_of::<bool>());
    // SAFETY: the name is zero-terminated; jemalloc writes a bool and its size, or nothing.
    let result =
        unsafe { tikv_jemalloc_sys::mallctl(name.as_ptr(), (&raw mut value).cast(), &mut size, ptr::null_mut(), 0) };
    result == 0 && value
}
