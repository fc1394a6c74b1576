//! Maps, through aya's typed ones: their types are made of byte arrays, of the sizes that the kernel reports.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf};

use crate::failure::{Failure, Stage};
use crate::protocol::{Bytes, MapSizes};

/// Run an expression with the constant that has the value of a number; None where it is not in the list.
macro_rules! with_constant {
    ($number:expr, $constant:ident in [$($value:literal)*], $body:expr) => {
        match $number {
            $($value => {
                const $constant: usize = $value;
                Some($body)
            })*
            _ => None,
        }
    };
}

/// The sizes of an array's values: all up to 16, then multiples of 4 up to 512.
macro_rules! with_value {
    ($size:expr, $constant:ident, $body:expr) => {
        with_constant!($size, $constant in [
            1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
            20 24 28 32 36 40 44 48 52 56 60 64 68 72 76 80 84 88 92 96 100 104 108 112 116 120 124 128
            132 136 140 144 148 152 156 160 164 168 172 176 180 184 188 192 196 200 204 208 212 216 220 224 228 232
            236 240 244 248 252 256 260 264 268 272 276 280 284 288 292 296 300 304 308 312 316 320 324 328 332 336
            340 344 348 352 356 360 364 368 372 376 380 384 388 392 396 400 404 408 412 416 420 424 428 432 436 440
            444 448 452 456 460 464 468 472 476 480 484 488 492 496 500 504 508 512
        ], $body)
    };
}

/// The sizes of a hash's keys and values: the usual ones only, because aya's code is compiled anew for every pair.
macro_rules! with_pair {
    ($key_size:expr, $key:ident, $value_size:expr, $value:ident, $body:expr) => {
        with_constant!($key_size, $key in [1 2 4 6 8 12 13 16 20 24 32 36 40 64],
            with_constant!($value_size, $value in [1 2 4 8 12 16 20 24 28 32 40 48 56 64 96 128 256], $body)
        ).flatten()
    };
}

/// A map and the stage that its errors have.
pub(crate) struct Access<'a> {
    name: &'a str,
    stage: Stage,
    map: &'a mut Map,
    sizes: MapSizes,
}

/// Return the maps of an object and their sizes.
pub(crate) fn describe(ebpf: &Ebpf) -> Result<BTreeMap<String, MapSizes>, Failure> {
    ebpf.maps()
        .map(|(name, map)| match sizes(map) {
            Ok(sizes) => Ok((name.to_owned(), sizes)),
            Err(error) => Err(Failure::of(Stage::Open, name, &error)),
        })
        .collect()
}

/// Take a ring buffer out of an object, as its consumer.
pub(crate) fn ring_buffer(ebpf: &mut Ebpf, name: &str) -> Result<RingBuf<MapData>, Failure> {
    let fail = |error: MapError| Failure::of(Stage::Open, name, &error);
    let map = ebpf
        .map_mut(name)
        .ok_or_else(|| Failure::absent(Stage::Open, "map", name))?;
    // tried before the map is taken: a refusal must not close a map whose descriptor is in the programs' instructions
    RingBuf::try_from(map).map(drop).map_err(fail)?;
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| Failure::absent(Stage::Open, "map", name))?;
    RingBuf::try_from(map).map_err(fail)
}

impl<'a> Access<'a> {
    pub(crate) fn new(ebpf: &'a mut Ebpf, name: &'a str, stage: Stage) -> Result<Self, Failure> {
        let map = ebpf.map_mut(name).ok_or_else(|| Failure::absent(stage, "map", name))?;
        let sizes = sizes(map).map_err(|error| Failure::of(stage, name, &error))?;
        Ok(Self {
            name,
            stage,
            map,
            sizes,
        })
    }

    /// Return the value of a key, None when the map has none.
    pub(crate) fn get(self, key: &[u8]) -> Result<Option<Bytes>, Failure> {
        let map = &mut *self.map;
        let found = match map {
            Map::Array(_) => with_value!(self.sizes.value, V, array_get::<V>(map, key)),
            Map::HashMap(_) | Map::LruHashMap(_) => {
                with_pair!(self.sizes.key, K, self.sizes.value, V, hash_get::<K, V>(map, key))
            }
            _ => return Err(self.unsuitable("one value for a key")),
        };
        self.found(found)
    }

    /// Return the values of a key, one for each possible CPU, None when the map has none.
    pub(crate) fn get_each_cpu(self, key: &[u8]) -> Result<Option<Vec<Bytes>>, Failure> {
        let map = &mut *self.map;
        let found = match map {
            Map::PerCpuArray(_) => with_value!(self.sizes.value, V, per_cpu_array_get::<V>(map, key)),
            Map::PerCpuHashMap(_) | Map::PerCpuLruHashMap(_) => {
                with_pair!(
                    self.sizes.key,
                    K,
                    self.sizes.value,
                    V,
                    per_cpu_hash_get::<K, V>(map, key)
                )
            }
            _ => return Err(self.unsuitable("a value for each CPU")),
        };
        self.found(found)
    }

    /// Set the value of a key.
    pub(crate) fn put(self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let Self {
            name,
            stage,
            map,
            sizes,
        } = self;
        let done = match map {
            Map::Array(_) => with_value!(sizes.value, V, array_put::<V>(map, key, value)),
            Map::HashMap(_) | Map::LruHashMap(_) => {
                with_pair!(sizes.key, K, sizes.value, V, hash_put::<K, V>(map, key, value))
            }
            _ => {
                return Err(Self {
                    name,
                    stage,
                    map,
                    sizes,
                }
                .unsuitable("one value for a key"));
            }
        };
        Self {
            name,
            stage,
            map,
            sizes,
        }
        .done(done)
    }

    /// Return the keys.
    pub(crate) fn keys(self) -> Result<Vec<Bytes>, Failure> {
        let map = &mut *self.map;
        let keys = match map {
            // every index is a key, and aya does not iterate over what it can count
            Map::Array(_) | Map::PerCpuArray(_) => {
                return Ok((0..self.sizes.entries)
                    .map(|index| Bytes(index.to_ne_bytes().to_vec()))
                    .collect());
            }
            Map::HashMap(_) | Map::LruHashMap(_) => {
                with_pair!(self.sizes.key, K, self.sizes.value, V, hash_keys::<K, V>(map))
            }
            Map::PerCpuHashMap(_) | Map::PerCpuLruHashMap(_) => {
                with_pair!(self.sizes.key, K, self.sizes.value, V, per_cpu_hash_keys::<K, V>(map))
            }
            _ => return Err(self.unsuitable("keys")),
        };
        self.done(keys)
    }

    /// Return what a lookup found; a key that the map does not have is no error.
    fn found<T>(&self, found: Option<Result<T, MapError>>) -> Result<Option<T>, Failure> {
        self.done(found.map(|found| match found {
            Ok(value) => Ok(Some(value)),
            // out of bounds: aya compares an array's index itself, the kernel would say ENOENT
            Err(MapError::KeyNotFound | MapError::OutOfBounds { .. }) => Ok(None),
            Err(error) => Err(error),
        }))
    }

    fn done<T>(&self, result: Option<Result<T, MapError>>) -> Result<T, Failure> {
        let MapSizes { key, value, .. } = self.sizes;
        result
            .ok_or_else(|| {
                let why = format!("this program is not built for keys of {key} bytes with values of {value} bytes");
                Failure::refused(self.stage, self.name, why)
            })?
            .map_err(|error| Failure::of(self.stage, self.name, &error))
    }

    fn unsuitable(&self, what: &str) -> Failure {
        let kind = format!("{:?}", self.map);
        // the variant's name, without the map's data
        let kind = kind.split('(').next().unwrap_or_default();
        Failure::refused(
            self.stage,
            self.name,
            format!("this program has no access to {what} in a map of type {kind}"),
        )
    }
}

fn sizes(map: &Map) -> Result<MapSizes, MapError> {
    let info = data(map).info()?;
    Ok(MapSizes {
        key: info.key_size(),
        value: info.value_size(),
        entries: info.max_entries(),
    })
}

fn data(map: &Map) -> &MapData {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::BloomFilter(data)
        | Map::CgroupArray(data)
        | Map::CgroupStorage(data)
        | Map::CgrpStorage(data)
        | Map::CpuMap(data)
        | Map::DevMap(data)
        | Map::DevMapHash(data)
        | Map::HashMap(data)
        | Map::HashOfMaps(data)
        | Map::InodeStorage(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuCgroupStorage(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::PerfEventArray(data)
        | Map::ProgramArray(data)
        | Map::Queue(data)
        | Map::ReusePortSockArray(data)
        | Map::RingBuf(data)
        | Map::SockHash(data)
        | Map::SockMap(data)
        | Map::SkStorage(data)
        | Map::Stack(data)
        | Map::StackTraceMap(data)
        | Map::Unsupported(data)
        | Map::XskMap(data) => data,
    }
}

fn array_get<const V: usize>(map: &mut Map, key: &[u8]) -> Result<Bytes, MapError> {
    Array::<_, [u8; V]>::try_from(map)?
        .get(&index(key)?, 0)
        .map(|value| bytes(&value))
}

fn array_put<const V: usize>(map: &mut Map, key: &[u8], value: &[u8]) -> Result<(), MapError> {
    Array::<_, [u8; V]>::try_from(map)?.set(index(key)?, value_of::<V>(value)?, 0)
}

fn hash_get<const K: usize, const V: usize>(map: &mut Map, key: &[u8]) -> Result<Bytes, MapError> {
    HashMap::<_, [u8; K], [u8; V]>::try_from(map)?
        .get(&key_of(key)?, 0)
        .map(|value| bytes(&value))
}

fn hash_put<const K: usize, const V: usize>(map: &mut Map, key: &[u8], value: &[u8]) -> Result<(), MapError> {
    HashMap::<_, [u8; K], [u8; V]>::try_from(map)?.insert(key_of::<K>(key)?, value_of::<V>(value)?, 0)
}

fn hash_keys<const K: usize, const V: usize>(map: &mut Map) -> Result<Vec<Bytes>, MapError> {
    HashMap::<_, [u8; K], [u8; V]>::try_from(map)?
        .keys()
        .map(|key| key.map(|key| bytes(&key)))
        .collect()
}

fn per_cpu_array_get<const V: usize>(map: &mut Map, key: &[u8]) -> Result<Vec<Bytes>, MapError> {
    PerCpuArray::<_, [u8; V]>::try_from(map)?
        .get(&index(key)?, 0)
        .map(each_cpu)
}

fn per_cpu_hash_get<const K: usize, const V: usize>(map: &mut Map, key: &[u8]) -> Result<Vec<Bytes>, MapError> {
    PerCpuHashMap::<_, [u8; K], [u8; V]>::try_from(map)?
        .get(&key_of(key)?, 0)
        .map(each_cpu)
}

fn per_cpu_hash_keys<const K: usize, const V: usize>(map: &mut Map) -> Result<Vec<Bytes>, MapError> {
    PerCpuHashMap::<_, [u8; K], [u8; V]>::try_from(map)?
        .keys()
        .map(|key| key.map(|key| bytes(&key)))
        .collect()
}

// by value, as `Result::map` hands it over
#[allow(clippy::needless_pass_by_value)]
fn each_cpu<const V: usize>(values: PerCpuValues<[u8; V]>) -> Vec<Bytes> {
    values.iter().map(|value| bytes(value)).collect()
}

fn bytes(value: &[u8]) -> Bytes {
    Bytes(value.to_vec())
}

fn index(key: &[u8]) -> Result<u32, MapError> {
    key_of(key).map(u32::from_ne_bytes)
}

fn key_of<const K: usize>(key: &[u8]) -> Result<[u8; K], MapError> {
    key.try_into().map_err(|_| MapError::InvalidKeySize {
        size: key.len(),
        expected: K,
    })
}

fn value_of<const V: usize>(value: &[u8]) -> Result<[u8; V], MapError> {
    value.try_into().map_err(|_| MapError::InvalidValueSize {
        size: value.len(),
        expected: V,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_size_is_the_librarys_error() {
        let error = index(&[1, 2]).expect_err("two bytes are no index");
        assert_eq!(error.to_string(), "invalid key size 2, expected 4");
        let error = value_of::<3>(&[]).expect_err("nothing is no value");
        assert_eq!(error.to_string(), "invalid value size 0, expected 3");
    }

    #[test]
    fn a_size_that_is_not_built_is_none() {
        assert_eq!(with_value!(512, V, V), Some(512));
        assert_eq!(with_value!(514, V, V), None);
        assert_eq!(with_pair!(16, K, 24, V, K + V), Some(40));
        assert_eq!(with_pair!(17, K, 24, V, K + V), None);
        assert_eq!(with_pair!(16, K, 25, V, K + V), None);
    }
}
