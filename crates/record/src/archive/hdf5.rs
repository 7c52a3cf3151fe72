//! The few calls of the HDF5 library that archives need, made safe: groups, attributes, chunks as they are, strings.
//!
//! The library is the reference one, in C, and not safe for threads: every call here takes the one lock that its Rust
//! bindings keep for that. Our own archives are read without it (`reader.rs`); files of others, and archives without
//! their index, are read in a process of their own (`worker.rs`).
// The library is C, so each call is unsafe. What makes them sound is said once, here: ids are checked when they are
// made and closed exactly once (`Id`), pointers go to values that outlive the call, and lengths are those of the values.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    ptr,
    sync::{Once, OnceLock},
};

use hdf5_metno_sys::{
    LOCK,
    h5::{H5open, hsize_t},
    h5a::{H5Aclose, H5Acreate2, H5Aexists, H5Aopen, H5Aread, H5Awrite},
    h5d::{
        H5D_alloc_time_t, H5D_fill_time_t, H5D_layout_t, H5Dchunk_iter, H5Dcreate2, H5Dget_create_plist, H5Dget_offset,
        H5Dget_space, H5Dopen2, H5Dset_extent, H5Dwrite, H5Dwrite_chunk,
    },
    h5e::{H5E_direction_t, H5E_error2_t, H5Eclear2, H5Eset_auto2, H5Ewalk2},
    h5f::{
        H5F_ACC_RDONLY, H5F_ACC_RDWR, H5F_ACC_TRUNC, H5F_close_degree_t, H5F_libver_t, H5Fclose, H5Fcreate, H5Fopen,
    },
    h5g::{H5Gcreate2, H5Gopen2},
    h5i::{H5Idec_ref, hid_t},
    h5p::{
        H5P_CLS_DATASET_CREATE, H5P_CLS_FILE_ACCESS, H5P_CLS_FILE_CREATE, H5P_CLS_GROUP_CREATE, H5Pcreate,
        H5Pget_external_count, H5Pget_layout, H5Pset_alloc_time, H5Pset_chunk, H5Pset_dset_no_attrs_hint,
        H5Pset_est_link_info, H5Pset_fclose_degree, H5Pset_file_locking, H5Pset_fill_time, H5Pset_filter,
        H5Pset_libver_bounds, H5Pset_obj_track_times, H5Pset_userblock,
    },
    h5s::{
        H5S_UNLIMITED, H5S_class_t, H5S_seloper_t, H5Screate, H5Screate_simple, H5Sget_simple_extent_dims,
        H5Sget_simple_extent_ndims, H5Sselect_hyperslab,
    },
    h5t::{H5T_C_S1, H5T_NATIVE_UINT8, H5T_NATIVE_UINT64, H5T_VARIABLE, H5T_cset_t, H5Tcopy, H5Tset_cset, H5Tset_size},
    h5z::{H5Z_FILTER_DEFLATE, H5Z_FILTER_SHUFFLE, H5Z_FLAG_OPTIONAL},
};

mod filters;
mod read;
mod strings;

pub(super) use filters::register as register_filters;
pub(super) use read::{Class, Link, text_value};

unsafe extern "C" {
    /// As the library's header has it; the bindings take a pointer instead of a mask.
    fn H5PLset_loading_state(mask: c_uint) -> c_int;
}

/// What the library says about a call that failed: its innermost words, then its outermost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed(pub(super) String);

type Result<T> = std::result::Result<T, Failed>;

const DEFAULT: hid_t = 0;
const ALL: hid_t = 0;

/// Runs `calls` as the only thread that is in the library.
fn alone<T>(calls: impl FnOnce() -> T) -> T {
    static OPEN: Once = Once::new();
    let _lock = LOCK.lock();
    // The library would print its own errors to standard error, and load code from folders that it knows.
    OPEN.call_once(|| unsafe {
        H5open();
        H5PLset_loading_state(0);
        H5Eset_auto2(DEFAULT, None, ptr::null_mut());
    });
    calls()
}

fn reason() -> Failed {
    unsafe extern "C" fn gather(_: c_uint, error: *const H5E_error2_t, words: *mut c_void) -> c_int {
        // Set by the one who walks, for as long as the walk.
        let words = unsafe { &mut *words.cast::<Vec<String>>() };
        if let Some(error) = unsafe { error.as_ref() }
            && !error.desc.is_null()
        {
            words.push(unsafe { CStr::from_ptr(error.desc) }.to_string_lossy().into_owned());
        }
        0
    }
    let mut words: Vec<String> = Vec::new();
    unsafe {
        H5Ewalk2(DEFAULT, H5E_direction_t::H5E_WALK_UPWARD, Some(gather), (&raw mut words).cast());
        H5Eclear2(DEFAULT);
    }
    words.dedup();
    // Which filter it is stands in the middle.
    if let Some(filter) = words.iter().find(|words| words.contains("required filter")) {
        return Failed(filter.clone());
    }
    match (words.first(), words.last()) {
        (Some(inner), Some(outer)) if inner != outer => Failed(format!("{inner} ({outer})")),
        (Some(words), _) => Failed(words.clone()),
        _ => Failed("it did not say why".to_owned()),
    }
}

fn done(code: c_int) -> Result<()> {
    if code < 0 { Err(reason()) } else { Ok(()) }
}

fn words(text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text).map_err(|_| Failed("a name or text has a zero byte".to_owned()))
}

/// Something of the library that is open; closed when dropped.
struct Id(hid_t);

impl Id {
    fn new(id: hid_t) -> Result<Self> {
        if id < 0 { Err(reason()) } else { Ok(Self(id)) }
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        alone(|| unsafe { H5Idec_ref(self.0) });
    }
}

/// A filter of a dataset: the number it is registered under, and its values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter<'a> {
    pub(super) id: i32,
    pub(super) values: &'a [c_uint],
}

/// A chunk as the file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkPlace {
    /// Where in the dataset it begins, in elements.
    pub(super) offset: u64,
    /// Where in the file it begins, in bytes.
    pub(super) address: u64,
    /// How many bytes it has there.
    pub(super) stored: u64,
    /// Which filters were left out, a bit each.
    pub(super) mask: u32,
}

/// An HDF5 file.
pub(super) struct File(Id);

impl File {
    /// A new file, in the format of HDF5 1.10: its metadata have checksums, and any library since 2016 reads it. Its first
    /// `user_block` bytes, 0 or 512 or a multiple of that by a power of two, the library leaves to its users.
    pub(super) fn create(path: &Path, user_block: u64) -> Result<Self> {
        Self::with_access(path, false, |path, access| unsafe {
            let version = H5F_libver_t::H5F_LIBVER_V110;
            let Ok(how) = Id::new(H5Pcreate(*H5P_CLS_FILE_CREATE)) else { return -1 };
            let set = [H5Pset_libver_bounds(access, version, version), H5Pset_userblock(how.0, user_block)];
            if set.iter().any(|code| *code < 0) { -1 } else { H5Fcreate(path, H5F_ACC_TRUNC, how.0, access) }
        })
    }

    /// A file that nobody else has open for writing, to be read.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::with_access(path, true, |path, access| unsafe { H5Fopen(path, H5F_ACC_RDONLY, access) })
    }

    /// A file that only we can have open, to be read.
    pub(super) fn open_own(path: &Path) -> Result<Self> {
        Self::with_access(path, false, |path, access| unsafe { H5Fopen(path, H5F_ACC_RDONLY, access) })
    }

    /// A file that only we can have open, to which something is to be added.
    pub(super) fn open_to_add(path: &Path) -> Result<Self> {
        Self::with_access(path, false, |path, access| unsafe { H5Fopen(path, H5F_ACC_RDWR, access) })
    }

    fn with_access(path: &Path, lock: bool, open: impl FnOnce(*const c_char, hid_t) -> hid_t) -> Result<Self> {
        let path = words(path.as_os_str().as_bytes())?;
        alone(|| unsafe {
            let access = Id::new(H5Pcreate(*H5P_CLS_FILE_ACCESS))?;
            // The library's locks outlive its files wherever a process is started meanwhile, which inherits them.
            done(H5Pset_file_locking(access.0, lock.into(), 1))?;
            done(H5Pset_fclose_degree(access.0, H5F_close_degree_t::H5F_CLOSE_STRONG))?;
            Id::new(open(path.as_ptr(), access.0)).map(Self)
        })
    }

    /// Writes what is left and closes; dropping would not say what went wrong.
    pub(super) fn close(self) -> Result<()> {
        let id = self.0.0;
        std::mem::forget(self);
        alone(|| done(unsafe { H5Fclose(id) }))
    }

    /// The group that all others stand in.
    pub(super) fn root(&self) -> Result<Group> {
        alone(|| Id::new(unsafe { H5Gopen2(self.0.0, c"/".as_ptr(), DEFAULT) }).map(Group))
    }
}

/// A group.
pub(super) struct Group(Id);

impl Group {
    /// A new group within it.
    pub(super) fn create_group(&self, name: &str) -> Result<Self> {
        let name = words(name)?;
        alone(|| unsafe { Id::new(H5Gcreate2(self.0.0, name.as_ptr(), DEFAULT, shared()?.group.0, DEFAULT)).map(Self) })
    }

    /// A group within it.
    pub(super) fn group(&self, name: &str) -> Result<Self> {
        self.group_at(&words(name)?)
    }

    fn group_at(&self, name: &CStr) -> Result<Self> {
        alone(|| Id::new(unsafe { H5Gopen2(self.0.0, name.as_ptr(), DEFAULT) }).map(Self))
    }

    /// Says `value` about it, under `name`, as h5py would.
    pub(super) fn set_text(&self, name: &str, value: &str) -> Result<()> {
        set_text(&self.0, name, value)
    }

    /// Says a number about it, under `name`.
    pub(super) fn set_number(&self, name: &str, value: u64) -> Result<()> {
        let name = words(name)?;
        alone(|| unsafe {
            let space = shared()?.scalar.0;
            let id = Id::new(H5Acreate2(self.0.0, name.as_ptr(), *H5T_NATIVE_UINT64, space, DEFAULT, DEFAULT))?;
            done(H5Awrite(id.0, *H5T_NATIVE_UINT64, (&raw const value).cast()))
        })
    }

    /// A number that is said about it.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>> {
        let name = words(name)?;
        alone(|| unsafe {
            match H5Aexists(self.0.0, name.as_ptr()) {
                ..0 => return Err(reason()),
                0 => return Ok(None),
                _ => {}
            }
            let id = H5Aopen(self.0.0, name.as_ptr(), DEFAULT);
            if id < 0 {
                return Err(reason());
            }
            let mut value = 0_u64;
            let read = done(H5Aread(id, *H5T_NATIVE_UINT64, (&raw mut value).cast()));
            H5Aclose(id);
            read.map(|()| Some(value))
        })
    }

    /// A dataset of bytes in chunks of `chunk` bytes: as long as one chunk if `one`, else empty and able to grow.
    pub(super) fn create_bytes(&self, name: &str, chunk: u64, one: bool, filters: &[Filter<'_>]) -> Result<Dataset> {
        let (length, most) = if one { (chunk, chunk) } else { (0, H5S_UNLIMITED) };
        alone(|| unsafe { self.create(name, *H5T_NATIVE_UINT8, length, most, chunk, filters) })
    }

    /// A dataset of numbers, compressed as any HDF5 can.
    pub(super) fn create_numbers(&self, name: &str, values: &[u64]) -> Result<()> {
        let (length, chunk) = (values.len() as hsize_t, values.len().clamp(1, 65_536) as hsize_t);
        let filters =
            [Filter { id: H5Z_FILTER_SHUFFLE, values: &[8] }, Filter { id: H5Z_FILTER_DEFLATE, values: &[4] }];
        alone(|| unsafe {
            let set = self.create(name, *H5T_NATIVE_UINT64, length, length, chunk, &filters)?;
            done(H5Dwrite(set.0.0, *H5T_NATIVE_UINT64, ALL, ALL, DEFAULT, values.as_ptr().cast()))
        })
    }

    /// Strings of variable length, written one by one as system after system does: for the bench alone.
    pub(super) fn write_strings(&self, name: &str, values: &[String], filters: &[Filter<'_>]) -> Result<()> {
        let count = values.len() as hsize_t;
        let values: Vec<CString> = values.iter().map(|value| words(value.as_str())).collect::<Result<_>>()?;
        alone(|| unsafe {
            let kind = &shared()?.text;
            let set = self.create(name, kind.0, count, count, count.clamp(1, 1000), filters)?;
            let (place, one) = (Id::new(H5Dget_space(set.0.0))?, 1);
            let memory = Id::new(H5Screate_simple(1, &one, ptr::null()))?;
            for (at, value) in values.iter().enumerate() {
                let start = at as hsize_t;
                let select = H5S_seloper_t::H5S_SELECT_SET;
                done(H5Sselect_hyperslab(place.0, select, &start, ptr::null(), &one, ptr::null()))?;
                let value = value.as_ptr();
                done(H5Dwrite(set.0.0, kind.0, memory.0, place.0, DEFAULT, (&raw const value).cast()))?;
            }
            Ok(())
        })
    }

    unsafe fn create(
        &self,
        name: &str,
        kind: hid_t,
        length: hsize_t,
        most: hsize_t,
        chunk: hsize_t,
        filters: &[Filter<'_>],
    ) -> Result<Dataset> {
        let name = words(name)?;
        unsafe {
            let how = Id::new(H5Pcreate(*H5P_CLS_DATASET_CREATE))?;
            done(H5Pset_obj_track_times(how.0, 0))?;
            // Nothing is said about datasets, so they need no room for it.
            done(H5Pset_dset_no_attrs_hint(how.0, 1))?;
            done(H5Pset_chunk(how.0, 1, &chunk))?;
            for filter in filters {
                // Optional, for this library need not have it: chunks are made by us. Who reads needs it all the same.
                let (id, values) = (filter.id, filter.values);
                done(H5Pset_filter(how.0, id, H5Z_FLAG_OPTIONAL, values.len(), values.as_ptr()))?;
            }
            let space = Id::new(H5Screate_simple(1, &length, &most))?;
            Id::new(H5Dcreate2(self.0.0, name.as_ptr(), kind, space.0, DEFAULT, how.0, DEFAULT)).map(Dataset)
        }
    }

    /// Makes room for `length` bytes in one piece, as a dataset, and tells where in the file it begins. What stands there is
    /// whatever the caller writes there once the file is closed.
    pub(super) fn reserve(&self, name: &str, length: u64) -> Result<u64> {
        let name = words(name)?;
        alone(|| unsafe {
            let how = Id::new(H5Pcreate(*H5P_CLS_DATASET_CREATE))?;
            done(H5Pset_obj_track_times(how.0, 0))?;
            done(H5Pset_alloc_time(how.0, H5D_alloc_time_t::H5D_ALLOC_TIME_EARLY))?;
            done(H5Pset_fill_time(how.0, H5D_fill_time_t::H5D_FILL_TIME_NEVER))?;
            let space = Id::new(H5Screate_simple(1, &length, &length))?;
            let kind = *H5T_NATIVE_UINT8;
            let set = Id::new(H5Dcreate2(self.0.0, name.as_ptr(), kind, space.0, DEFAULT, how.0, DEFAULT))?;
            Dataset(set).address().ok_or_else(|| Failed("no room was made in the file".to_owned()))
        })
    }

    /// A dataset within it. One whose bytes lie in other files is refused.
    pub(super) fn dataset(&self, name: &str) -> Result<Dataset> {
        self.dataset_at(&words(name)?)
    }

    fn dataset_at(&self, name: &CStr) -> Result<Dataset> {
        alone(|| unsafe {
            let set = Id::new(H5Dopen2(self.0.0, name.as_ptr(), DEFAULT))?;
            let how = Id::new(H5Dget_create_plist(set.0))?;
            let elsewhere = H5Pget_external_count(how.0) != 0 || H5Pget_layout(how.0) == H5D_layout_t::H5D_VIRTUAL;
            if elsewhere { Err(Failed("a dataset lies in another file".to_owned())) } else { Ok(Dataset(set)) }
        })
    }
}

/// A dataset of one dimension.
pub(super) struct Dataset(Id);

impl Dataset {
    /// How many elements it has.
    pub(super) fn length(&self) -> Result<u64> {
        alone(|| unsafe {
            let space = Id::new(H5Dget_space(self.0.0))?;
            if H5Sget_simple_extent_ndims(space.0) != 1 {
                return Err(Failed("a dataset has not one dimension".to_owned()));
            }
            let mut length: hsize_t = 0;
            done(H5Sget_simple_extent_dims(space.0, &raw mut length, ptr::null_mut()))?;
            Ok(length)
        })
    }

    /// Where in the file its bytes begin, if they lie there in one piece.
    pub(super) fn address(&self) -> Option<u64> {
        // The library says an address of ones where there is none.
        Some(alone(|| unsafe { H5Dget_offset(self.0.0) })).filter(|address| *address != u64::MAX)
    }

    /// Makes it so long.
    pub(super) fn extend(&self, length: u64) -> Result<()> {
        alone(|| done(unsafe { H5Dset_extent(self.0.0, &length) }))
    }

    /// Writes a chunk that has passed its filters already; `mask` says which of them it has not.
    pub(super) fn write_chunk(&self, offset: u64, mask: u32, bytes: &[u8]) -> Result<()> {
        let (size, from) = (bytes.len(), bytes.as_ptr().cast());
        alone(|| done(unsafe { H5Dwrite_chunk(self.0.0, DEFAULT, mask, &offset, size, from) }))
    }

    /// Where its chunks lie, in no order.
    pub(super) fn chunks(&self) -> Result<Vec<ChunkPlace>> {
        unsafe extern "C" fn gather(
            offset: *const hsize_t,
            mask: c_uint,
            address: u64,
            stored: hsize_t,
            places: *mut c_void,
        ) -> c_int {
            // Set by the one who walks, for as long as the walk; the dataset has one dimension.
            let (places, offset) = unsafe { (&mut *places.cast::<Vec<ChunkPlace>>(), *offset) };
            places.push(ChunkPlace { offset, address, stored, mask });
            0
        }
        let mut places: Vec<ChunkPlace> = Vec::new();
        alone(|| done(unsafe { H5Dchunk_iter(self.0.0, DEFAULT, Some(gather), (&raw mut places).cast()) }))?;
        Ok(places)
    }
}

/// What is the same for each group and attribute, made once and never closed.
struct Shared {
    text: Id,
    scalar: Id,
    group: Id,
}

unsafe fn shared() -> Result<&'static Shared> {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    if let Some(shared) = SHARED.get() {
        return Ok(shared);
    }
    unsafe {
        let text = Id::new(H5Tcopy(*H5T_C_S1))?;
        done(H5Tset_size(text.0, H5T_VARIABLE))?;
        done(H5Tset_cset(text.0, H5T_cset_t::H5T_CSET_UTF8))?;
        let group = Id::new(H5Pcreate(*H5P_CLS_GROUP_CREATE))?;
        done(H5Pset_obj_track_times(group.0, 0))?;
        // Room for the names of two datasets, and no more.
        done(H5Pset_est_link_info(group.0, 2, 8))?;
        let scalar = Id::new(H5Screate(H5S_class_t::H5S_SCALAR))?;
        Ok(SHARED.get_or_init(|| Shared { text, scalar, group }))
    }
}

fn set_text(on: &Id, name: &str, value: &str) -> Result<()> {
    let (name, value) = (words(name)?, words(value)?);
    alone(|| unsafe {
        let Shared { text, scalar, .. } = shared()?;
        let id = Id::new(H5Acreate2(on.0, name.as_ptr(), text.0, scalar.0, DEFAULT, DEFAULT))?;
        let value = value.as_ptr();
        done(H5Awrite(id.0, text.0, (&raw const value).cast()))
    })
}
