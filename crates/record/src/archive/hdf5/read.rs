//! What imports read of files of others: links, attributes, and columns of texts and numbers.
// Sound for the reasons that `hdf5.rs` gives.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hdf5_metno_sys::{
    h5::{H5_index_t, H5_iter_order_t, H5free_memory, hsize_t},
    h5a::{H5A_info_t, H5Aget_space, H5Aget_type, H5Aiterate2, H5Aopen, H5Aread},
    h5d::{H5Dget_space, H5Dget_type, H5Dread},
    h5i::hid_t,
    h5l::{H5L_info2_t, H5Literate2},
    h5s::{
        H5S_seloper_t, H5Screate_simple, H5Sget_simple_extent_dims, H5Sget_simple_extent_ndims,
        H5Sget_simple_extent_npoints, H5Sselect_hyperslab,
    },
    h5t::{
        H5T_NATIVE_DOUBLE, H5T_NATIVE_FLOAT, H5T_NATIVE_INT64, H5T_NATIVE_UINT8, H5T_NATIVE_UINT64, H5T_class_t,
        H5T_sign_t, H5Tget_class, H5Tget_member_name, H5Tget_nmembers, H5Tget_sign, H5Tget_size, H5Tget_strpad,
        H5Tis_variable_str, H5Treclaim,
    },
};
use serde_json::{Value, json};

use super::{DEFAULT, Dataset, Failed, Group, Id, Result, alone, done};

/// Most bytes that are read in one go.
pub(super) const MOST: usize = 1 << 30;
/// Most dimensions that are looked at.
const DIMENSIONS: usize = 32;

/// A name in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Link {
    /// Bytes that are no UTF-8 stand in it as `%E9`.
    pub(in super::super) name: String,
    raw: CString,
    /// Whether what it names lies here. Others name a place, which may be in another file, and are not followed.
    pub(in super::super) here: bool,
}

/// What the elements of a dataset are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Class {
    Text,
    /// Integers of one byte.
    Bytes,
    /// Integers that may be negative.
    Integer,
    /// Integers that may not.
    Unsigned,
    /// Floating-point numbers of at most four bytes.
    Float,
    /// Those of eight.
    Double,
    /// Several values under names.
    Compound,
    Other,
}

impl Group {
    /// All names in it.
    pub(in super::super) fn links(&self) -> Result<Vec<Link>> {
        unsafe extern "C" fn gather(
            _: hid_t,
            name: *const c_char,
            info: *const H5L_info2_t,
            links: *mut c_void,
        ) -> c_int {
            // Set by the one who walks, for as long as the walk.
            let links = unsafe { &mut *links.cast::<Vec<Link>>() };
            // The kind is read as a number: a hostile file may hold one that the enum does not.
            let here = unsafe { info.cast::<c_int>().read() } == 0;
            let raw = unsafe { CStr::from_ptr(name) }.to_owned();
            links.push(Link { name: shown(raw.to_bytes()), raw, here });
            0
        }
        let mut links: Vec<Link> = Vec::new();
        alone(|| unsafe {
            let into = (&raw mut links).cast();
            let order = H5_iter_order_t::H5_ITER_NATIVE;
            done(H5Literate2(self.0.0, H5_index_t::H5_INDEX_NAME, order, ptr::null_mut(), Some(gather), into))
        })?;
        Ok(links)
    }

    /// The group that a link of it names.
    pub(in super::super) fn linked_group(&self, link: &Link) -> Result<Self> {
        self.group_at(&link.raw)
    }

    /// The dataset that a link of it names.
    pub(in super::super) fn linked_dataset(&self, link: &Link) -> Result<Dataset> {
        self.dataset_at(&link.raw)
    }

    /// Its attributes that are one text or one number; `None` stands for one of another kind.
    pub(in super::super) fn attributes(&self) -> Result<Vec<(String, Option<Value>)>> {
        let names = attribute_names(&self.0)?;
        names.into_iter().map(|name| Ok((shown(name.to_bytes()), self.attribute(&name)?))).collect()
    }

    fn attribute(&self, name: &CStr) -> Result<Option<Value>> {
        alone(|| unsafe {
            let id = Id::new(H5Aopen(self.0.0, name.as_ptr(), DEFAULT))?;
            let (kind, space) = (Id::new(H5Aget_type(id.0))?, Id::new(H5Aget_space(id.0))?);
            if H5Sget_simple_extent_npoints(space.0) != 1 {
                return Ok(None);
            }
            Ok(match class(&kind) {
                Class::Text => text_attribute(&id, &kind, &space)?,
                Class::Bytes | Class::Integer => {
                    let mut value = 0_i64;
                    done(H5Aread(id.0, *H5T_NATIVE_INT64, (&raw mut value).cast()))?;
                    Some(value.into())
                }
                Class::Unsigned => {
                    let mut value = 0_u64;
                    done(H5Aread(id.0, *H5T_NATIVE_UINT64, (&raw mut value).cast()))?;
                    Some(value.into())
                }
                Class::Float | Class::Double => {
                    let mut value = 0_f64;
                    done(H5Aread(id.0, *H5T_NATIVE_DOUBLE, (&raw mut value).cast()))?;
                    serde_json::Number::from_f64(value).map(Value::Number)
                }
                Class::Compound | Class::Other => None,
            })
        })
    }
}

/// The names of the attributes of a group or dataset.
fn attribute_names(of: &Id) -> Result<Vec<CString>> {
    unsafe extern "C" fn gather(_: hid_t, name: *const c_char, _: *const H5A_info_t, names: *mut c_void) -> c_int {
        // Set by the one who walks, for as long as the walk.
        let names = unsafe { &mut *names.cast::<Vec<CString>>() };
        names.push(unsafe { CStr::from_ptr(name) }.to_owned());
        0
    }
    let mut names: Vec<CString> = Vec::new();
    alone(|| unsafe {
        let into = (&raw mut names).cast();
        let order = H5_iter_order_t::H5_ITER_NATIVE;
        done(H5Aiterate2(of.0, H5_index_t::H5_INDEX_NAME, order, ptr::null_mut(), Some(gather), into))
    })?;
    Ok(names)
}

/// A text as JSON; bytes that are no UTF-8 in base64.
pub(in super::super) fn text_value(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({"base64": BASE64_STANDARD.encode(bytes)}),
    }
}

/// A name as text, of which no two become one unless they have `%` in them.
fn shown(name: &[u8]) -> String {
    let mut shown = String::with_capacity(name.len());
    for part in name.utf8_chunks() {
        shown.push_str(part.valid());
        part.invalid().iter().for_each(|byte| shown.push_str(&format!("%{byte:02X}")));
    }
    shown
}

unsafe fn text_attribute(id: &Id, kind: &Id, space: &Id) -> Result<Option<Value>> {
    unsafe {
        if H5Tis_variable_str(kind.0) > 0 {
            let mut text: *mut c_char = ptr::null_mut();
            done(H5Aread(id.0, kind.0, (&raw mut text).cast()))?;
            if text.is_null() {
                return Ok(None);
            }
            let copy = text_value(CStr::from_ptr(text).to_bytes());
            done(H5Treclaim(kind.0, space.0, DEFAULT, (&raw mut text).cast()))?;
            return Ok(Some(copy));
        }
        let size = H5Tget_size(kind.0);
        if size == 0 || size > MOST {
            return Ok(None);
        }
        let mut bytes = vec![0_u8; size];
        done(H5Aread(id.0, kind.0, bytes.as_mut_ptr().cast()))?;
        Ok(Some(text_value(super::strings::without_padding(&bytes, H5Tget_strpad(kind.0)))))
    }
}

unsafe fn class(kind: &Id) -> Class {
    let size = unsafe { H5Tget_size(kind.0) };
    // A compound with a text in it is no text, so its own class is what counts.
    match unsafe { H5Tget_class(kind.0) } {
        H5T_class_t::H5T_STRING => Class::Text,
        H5T_class_t::H5T_INTEGER if size == 1 => Class::Bytes,
        H5T_class_t::H5T_INTEGER if unsafe { H5Tget_sign(kind.0) } == H5T_sign_t::H5T_SGN_NONE => Class::Unsigned,
        H5T_class_t::H5T_INTEGER => Class::Integer,
        H5T_class_t::H5T_FLOAT if size <= 4 => Class::Float,
        H5T_class_t::H5T_FLOAT if size == 8 => Class::Double,
        H5T_class_t::H5T_COMPOUND => Class::Compound,
        _ => Class::Other,
    }
}

impl Dataset {
    /// What its elements are.
    pub(in super::super) fn class(&self) -> Result<Class> {
        alone(|| unsafe { Ok(class(&Id::new(H5Dget_type(self.0.0))?)) })
    }

    /// The names of its attributes.
    pub(in super::super) fn attribute_names(&self) -> Result<Vec<String>> {
        Ok(attribute_names(&self.0)?.iter().map(|name| shown(name.to_bytes())).collect())
    }

    /// The names of the values in each element, where it holds several.
    pub(in super::super) fn members(&self) -> Result<Vec<String>> {
        alone(|| unsafe {
            let kind = Id::new(H5Dget_type(self.0.0))?;
            let mut names = Vec::new();
            for number in 0..H5Tget_nmembers(kind.0).max(0).unsigned_abs() {
                let name = H5Tget_member_name(kind.0, number);
                if !name.is_null() {
                    names.push(shown(CStr::from_ptr(name).to_bytes()));
                    done(H5free_memory(name.cast()))?;
                }
            }
            Ok(names)
        })
    }

    /// Its length in each dimension; none for a single value.
    pub(in super::super) fn shape(&self) -> Result<Vec<u64>> {
        alone(|| unsafe {
            let space = Id::new(H5Dget_space(self.0.0))?;
            let dimensions = H5Sget_simple_extent_ndims(space.0);
            let Some(dimensions) = usize::try_from(dimensions).ok().filter(|count| *count <= DIMENSIONS) else {
                return Err(Failed("a dataset has no dimensions that can be read".to_owned()));
            };
            let mut lengths = vec![0 as hsize_t; dimensions];
            if dimensions > 0 {
                done(H5Sget_simple_extent_dims(space.0, lengths.as_mut_ptr(), ptr::null_mut()))?;
            }
            Ok(lengths)
        })
    }

    /// The integer at `at`.
    pub(in super::super) fn integer(&self, at: u64) -> Result<i64> {
        let mut value = 0_i64;
        alone(|| unsafe { self.rows(*H5T_NATIVE_INT64, &[(at, 1)], (&raw mut value).cast()) })?;
        Ok(value)
    }

    /// The integer at `at`, where it cannot be negative.
    pub(in super::super) fn unsigned(&self, at: u64) -> Result<u64> {
        let mut value = 0_u64;
        alone(|| unsafe { self.rows(*H5T_NATIVE_UINT64, &[(at, 1)], (&raw mut value).cast()) })?;
        Ok(value)
    }

    /// The floating-point number at `at`.
    pub(in super::super) fn double(&self, at: u64) -> Result<f64> {
        let mut value = 0_f64;
        alone(|| unsafe { self.rows(*H5T_NATIVE_DOUBLE, &[(at, 1)], (&raw mut value).cast()) })?;
        Ok(value)
    }

    /// The row `at` of a dataset of two dimensions, `width` numbers of four bytes wide.
    pub(in super::super) fn floats(&self, at: u64, width: usize) -> Result<Vec<f32>> {
        let mut values = vec![0_f32; readable(width)?];
        let place = [(at, 1), (0, width as u64)];
        alone(|| unsafe { self.rows(*H5T_NATIVE_FLOAT, &place, values.as_mut_ptr().cast()) })?;
        Ok(values)
    }

    /// The row `at` of a dataset of two dimensions, `width` numbers of eight bytes wide.
    pub(in super::super) fn doubles(&self, at: u64, width: usize) -> Result<Vec<f64>> {
        let mut values = vec![0_f64; readable(width)?];
        let place = [(at, 1), (0, width as u64)];
        alone(|| unsafe { self.rows(*H5T_NATIVE_DOUBLE, &place, values.as_mut_ptr().cast()) })?;
        Ok(values)
    }

    /// `count` bytes from `start` on.
    pub(in super::super) fn bytes(&self, start: u64, count: usize) -> Result<Vec<u8>> {
        let mut values = vec![0_u8; count.min(MOST)];
        let place = [(start, values.len() as u64)];
        alone(|| unsafe { self.rows(*H5T_NATIVE_UINT8, &place, values.as_mut_ptr().cast()) })?;
        Ok(values)
    }

    /// Reads a block, begin and length in each dimension, as `kind` into memory that holds so many.
    unsafe fn rows(&self, kind: hid_t, block: &[(hsize_t, hsize_t)], into: *mut c_void) -> Result<()> {
        let starts: Vec<hsize_t> = block.iter().map(|(start, _)| *start).collect();
        let counts: Vec<hsize_t> = block.iter().map(|(_, count)| *count).collect();
        unsafe {
            let place = Id::new(H5Dget_space(self.0.0))?;
            if H5Sget_simple_extent_ndims(place.0) != block.len() as c_int {
                return Err(Failed("a dataset has another number of dimensions than was seen".to_owned()));
            }
            let select = H5S_seloper_t::H5S_SELECT_SET;
            let all = ptr::null();
            done(H5Sselect_hyperslab(place.0, select, starts.as_ptr(), all, counts.as_ptr(), all))?;
            let memory = Id::new(H5Screate_simple(block.len() as c_int, counts.as_ptr(), ptr::null()))?;
            done(H5Dread(self.0.0, kind, memory.0, place.0, DEFAULT, into))
        }
    }
}

/// How many numbers a row has, where these can be read in one go.
fn readable(width: usize) -> Result<usize> {
    match width.saturating_mul(8) > MOST {
        true => Err(Failed("a row of numbers is longer than can be read".to_owned())),
        false => Ok(width),
    }
}
