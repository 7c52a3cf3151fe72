//! What imports read of files of others: links, attributes, and columns of texts and numbers.
// Sound for the reasons that `hdf5.rs` gives.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr,
};

use hdf5_metno_sys::{
    h5::{H5_index_t, H5_iter_order_t, hsize_t},
    h5a::{H5A_info_t, H5Aget_space, H5Aget_type, H5Aiterate2, H5Aopen, H5Aread},
    h5d::{H5Dget_space, H5Dget_type, H5Dread},
    h5i::hid_t,
    h5l::{H5L_info2_t, H5Literate2},
    h5s::{
        H5S_seloper_t, H5Screate_simple, H5Sget_simple_extent_dims, H5Sget_simple_extent_ndims,
        H5Sget_simple_extent_npoints, H5Sselect_hyperslab,
    },
    h5t::{
        H5T_NATIVE_DOUBLE, H5T_NATIVE_FLOAT, H5T_NATIVE_INT64, H5T_NATIVE_UINT8, H5T_class_t, H5Tget_class,
        H5Tget_size, H5Tis_variable_str, H5Treclaim,
    },
};
use serde_json::Value;

use super::{DEFAULT, Dataset, Failed, Group, Id, Result, alone, done, words};

/// Most bytes that are read in one go.
const MOST: usize = 1 << 30;
/// Most dimensions that are looked at.
const DIMENSIONS: usize = 32;

/// A name in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Link {
    pub(in super::super) name: String,
    /// Whether what it names lies here. Others name a place, which may be in another file, and are not followed.
    pub(in super::super) here: bool,
}

/// What the elements of a dataset are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Class {
    Text,
    /// Integers of one byte.
    Bytes,
    Integer,
    Float,
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
            let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
            links.push(Link { name, here });
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

    /// Its attributes that are one text or one number; `None` stands for one of another kind.
    pub(in super::super) fn attributes(&self) -> Result<Vec<(String, Option<Value>)>> {
        unsafe extern "C" fn gather(_: hid_t, name: *const c_char, _: *const H5A_info_t, names: *mut c_void) -> c_int {
            // Set by the one who walks, for as long as the walk.
            let names = unsafe { &mut *names.cast::<Vec<String>>() };
            names.push(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
            0
        }
        let mut names: Vec<String> = Vec::new();
        alone(|| unsafe {
            let into = (&raw mut names).cast();
            let order = H5_iter_order_t::H5_ITER_NATIVE;
            done(H5Aiterate2(self.0.0, H5_index_t::H5_INDEX_NAME, order, ptr::null_mut(), Some(gather), into))
        })?;
        names.into_iter().map(|name| Ok((name.clone(), self.attribute(&name)?))).collect()
    }

    fn attribute(&self, name: &str) -> Result<Option<Value>> {
        let name = words(name)?;
        alone(|| unsafe {
            let id = Id::new(H5Aopen(self.0.0, name.as_ptr(), DEFAULT))?;
            let (kind, space) = (Id::new(H5Aget_type(id.0))?, Id::new(H5Aget_space(id.0))?);
            if H5Sget_simple_extent_npoints(space.0) != 1 {
                return Ok(None);
            }
            Ok(match class(&kind) {
                Class::Text => text_attribute(&id, &kind, &space)?.map(Value::String),
                Class::Bytes | Class::Integer => {
                    let mut value = 0_i64;
                    done(H5Aread(id.0, *H5T_NATIVE_INT64, (&raw mut value).cast()))?;
                    Some(value.into())
                }
                Class::Float => {
                    let mut value = 0_f64;
                    done(H5Aread(id.0, *H5T_NATIVE_DOUBLE, (&raw mut value).cast()))?;
                    serde_json::Number::from_f64(value).map(Value::Number)
                }
                Class::Other => None,
            })
        })
    }
}

unsafe fn text_attribute(id: &Id, kind: &Id, space: &Id) -> Result<Option<String>> {
    unsafe {
        if H5Tis_variable_str(kind.0) > 0 {
            let mut text: *mut c_char = ptr::null_mut();
            done(H5Aread(id.0, kind.0, (&raw mut text).cast()))?;
            if text.is_null() {
                return Ok(None);
            }
            let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
            done(H5Treclaim(kind.0, space.0, DEFAULT, (&raw mut text).cast()))?;
            return Ok(Some(copy));
        }
        let size = H5Tget_size(kind.0);
        if size == 0 || size > MOST {
            return Ok(None);
        }
        let mut bytes = vec![0_u8; size];
        done(H5Aread(id.0, kind.0, bytes.as_mut_ptr().cast()))?;
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Some(String::from_utf8_lossy(text).into_owned()))
    }
}

unsafe fn class(kind: &Id) -> Class {
    // A compound with a text in it is no text, so its own class is what counts.
    match unsafe { H5Tget_class(kind.0) } {
        H5T_class_t::H5T_STRING => Class::Text,
        H5T_class_t::H5T_INTEGER if unsafe { H5Tget_size(kind.0) } == 1 => Class::Bytes,
        H5T_class_t::H5T_INTEGER => Class::Integer,
        H5T_class_t::H5T_FLOAT => Class::Float,
        _ => Class::Other,
    }
}

impl Dataset {
    /// What its elements are.
    pub(in super::super) fn class(&self) -> Result<Class> {
        alone(|| unsafe { Ok(class(&Id::new(H5Dget_type(self.0.0))?)) })
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

    /// `count` integers from `start` on.
    pub(in super::super) fn integers(&self, start: u64, count: usize) -> Result<Vec<i64>> {
        let mut values = vec![0_i64; count];
        alone(|| unsafe { self.rows(*H5T_NATIVE_INT64, &[(start, count as u64)], values.as_mut_ptr().cast()) })?;
        Ok(values)
    }

    /// `count` floating-point numbers from `start` on.
    pub(in super::super) fn doubles(&self, start: u64, count: usize) -> Result<Vec<f64>> {
        let mut values = vec![0_f64; count];
        alone(|| unsafe { self.rows(*H5T_NATIVE_DOUBLE, &[(start, count as u64)], values.as_mut_ptr().cast()) })?;
        Ok(values)
    }

    /// The row `at` of a dataset of two dimensions, `width` numbers wide.
    pub(in super::super) fn row(&self, at: u64, width: usize) -> Result<Vec<f32>> {
        if width.saturating_mul(4) > MOST {
            return Err(Failed("a row of numbers is longer than can be read".to_owned()));
        }
        let mut values = vec![0_f32; width];
        let place = [(at, 1), (0, width as u64)];
        alone(|| unsafe { self.rows(*H5T_NATIVE_FLOAT, &place, values.as_mut_ptr().cast()) })?;
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
