//! What goes over the pipes: see `../PROTOCOL.md`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::failure::Failure;

/// The program's first line.
#[derive(Debug, Serialize)]
pub(crate) struct Hello {
    protocol: u32,
    loader: &'static str,
    /// the library's
    version: &'static str,
}

/// The version of aya in Cargo.toml.
pub(crate) const AYA: &str = "0.14.0";

impl Default for Hello {
    fn default() -> Self {
        Self {
            protocol: 1,
            loader: "aya",
            version: AYA,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) step: Step,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Step {
    Open {
        path: String,
        max_entries: BTreeMap<String, u32>,
    },
    Load {
        object: u64,
        #[serde(deserialize_with = "present")]
        program: Option<String>,
    },
    Attach {
        object: u64,
        program: String,
        target: Target,
    },
    Detach {
        link: u64,
    },
    Get {
        object: u64,
        map: String,
        key: Bytes,
    },
    GetEachCpu {
        object: u64,
        map: String,
        key: Bytes,
    },
    Put {
        object: u64,
        map: String,
        key: Bytes,
        value: Bytes,
    },
    Keys {
        object: u64,
        map: String,
    },
    RingBuffer {
        object: u64,
        map: String,
    },
    Consume {
        ring: u64,
    },
    TestRun {
        object: u64,
        program: String,
        data: Bytes,
    },
    Close {
        object: u64,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    Kprobe(String),
    Tracepoint(#[serde(deserialize_with = "object")] Tracepoint),
    Xdp(#[serde(deserialize_with = "object")] Interface),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tracepoint {
    pub(crate) category: String,
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Interface {
    pub(crate) ifindex: u32,
    pub(crate) mode: Mode,
    /// None: the program's own
    #[serde(deserialize_with = "present")]
    pub(crate) netns: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    Default,
    Native,
    Generic,
}

/// Bytes as hexadecimal digits in lower case.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

#[derive(Debug, Serialize)]
pub(crate) struct MapSizes {
    /// bytes
    pub(crate) key: u32,
    /// bytes
    pub(crate) value: u32,
    pub(crate) entries: u32,
}

/// The result of a step.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    Object {
        object: u64,
        programs: BTreeMap<String, &'static str>,
        maps: BTreeMap<String, MapSizes>,
    },
    Link {
        link: u64,
    },
    Ring {
        ring: u64,
    },
    Value {
        value: Option<Bytes>,
    },
    Values {
        values: Option<Vec<Bytes>>,
    },
    Keys {
        keys: Vec<Bytes>,
    },
    Records {
        records: Vec<Bytes>,
    },
    Verdict {
        verdict: u32,
        data: Bytes,
    },
    Done {},
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Reply {
    Result { id: u64, result: Answer },
    Error { id: u64, error: Failure },
    Malformed { id: Option<u64>, malformed: String },
}

impl Reply {
    pub(crate) fn malformed(id: Option<u64>, why: impl Into<String>) -> Self {
        Self::Malformed {
            id,
            malformed: why.into(),
        }
    }
}

impl Request {
    /// Parse a line without its end; return the reply to one that is no request.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, Reply> {
        let mut fields: Map<String, Value> =
            serde_json::from_slice(line).map_err(|error| Reply::malformed(None, error.to_string()))?;
        // taken out: it is no field of the step
        let id = match fields.remove("id") {
            Some(id) => id
                .as_u64()
                .ok_or_else(|| Reply::malformed(None, format!("id is no number: {id}")))?,
            None => return Err(Reply::malformed(None, "missing field `id`")),
        };
        match Step::deserialize(Value::Object(fields)) {
            Ok(step) => Ok(Self { id, step }),
            Err(error) => Err(Reply::malformed(Some(id), error.to_string())),
        }
    }
}

/// Deserialize a field that may be null, but not missing: serde's default takes both for None.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// Deserialize a struct from an object only: serde's default takes an array of its fields, too.
fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let fields = Map::deserialize(deserializer)?;
    T::deserialize(Value::Object(fields)).map_err(D::Error::custom)
}

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            })
            .collect();
        bytes
            .map(Self)
            .ok_or_else(|| D::Error::custom("bytes are pairs of hexadecimal digits in lower case"))
    }
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(line: &str) -> Step {
        Request::parse(line.as_bytes())
            .unwrap_or_else(|reply| panic!("{line}: {reply:?}"))
            .step
    }

    /// Return id and text of the reply to a line that is no request.
    fn refused(line: impl AsRef<[u8]>) -> (Option<u64>, String) {
        match Request::parse(line.as_ref()) {
            Err(Reply::Malformed { id, malformed }) => (id, malformed),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_request_is_understood() {
        let open = parsed(r#"{"id": 1, "do": "open", "path": "/a.o", "max_entries": {"m": 7}}"#);
        assert!(matches!(open, Step::Open { path, max_entries } if path == "/a.o" && max_entries["m"] == 7));
        let one = parsed(r#"{"id": 1, "do": "load", "object": 2, "program": "p"}"#);
        assert!(matches!(one, Step::Load { object: 2, program: Some(name) } if name == "p"));
        let all = parsed(r#"{"id": 1, "do": "load", "object": 2, "program": null}"#);
        assert!(matches!(
            all,
            Step::Load {
                object: 2,
                program: None
            }
        ));
        assert!(matches!(
            parsed(r#"{"id": 1, "do": "detach", "link": 3}"#),
            Step::Detach { link: 3 }
        ));
        let get = parsed(r#"{"id": 1, "do": "get", "object": 2, "map": "m", "key": "00ff"}"#);
        assert!(matches!(get, Step::Get { object: 2, map, key } if map == "m" && key.0 == [0, 255]));
        let each = parsed(r#"{"id": 1, "do": "get_each_cpu", "object": 2, "map": "m", "key": ""}"#);
        assert!(matches!(each, Step::GetEachCpu { object: 2, map, key } if map == "m" && key.0.is_empty()));
        let put = parsed(r#"{"id": 1, "do": "put", "object": 2, "map": "m", "key": "01", "value": "02"}"#);
        assert!(matches!(put, Step::Put { object: 2, key, value, .. } if key.0 == [1] && value.0 == [2]));
        let keys = parsed(r#"{"id": 1, "do": "keys", "object": 2, "map": "m"}"#);
        assert!(matches!(keys, Step::Keys { object: 2, map } if map == "m"));
        let ring = parsed(r#"{"id": 1, "do": "ring_buffer", "object": 2, "map": "m"}"#);
        assert!(matches!(ring, Step::RingBuffer { object: 2, map } if map == "m"));
        assert!(matches!(
            parsed(r#"{"id": 1, "do": "consume", "ring": 4}"#),
            Step::Consume { ring: 4 }
        ));
        let run = parsed(r#"{"id": 1, "do": "test_run", "object": 2, "program": "p", "data": "0a"}"#);
        assert!(matches!(run, Step::TestRun { object: 2, program, data } if program == "p" && data.0 == [10]));
        assert!(matches!(
            parsed(r#"{"id": 1, "do": "close", "object": 2}"#),
            Step::Close { object: 2 }
        ));
    }

    fn target(target: &str) -> Target {
        match parsed(&format!(
            r#"{{"id": 1, "do": "attach", "object": 2, "program": "p", "target": {target}}}"#
        )) {
            Step::Attach { object: 2, target, .. } => target,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_target_is_understood() {
        assert!(matches!(target(r#"{"kprobe": "f"}"#), Target::Kprobe(symbol) if symbol == "f"));
        let tracepoint = target(r#"{"tracepoint": {"category": "c", "name": "n"}}"#);
        assert!(
            matches!(tracepoint, Target::Tracepoint(Tracepoint { category, name }) if (&*category, &*name) == ("c", "n"))
        );
        let native = target(r#"{"xdp": {"ifindex": 3, "mode": "native", "netns": "/n"}}"#);
        assert!(
            matches!(native, Target::Xdp(Interface { ifindex: 3, mode: Mode::Native, netns: Some(path) }) if path == "/n")
        );
        let own = target(r#"{"xdp": {"ifindex": 3, "mode": "default", "netns": null}}"#);
        assert!(matches!(
            own,
            Target::Xdp(Interface {
                mode: Mode::Default,
                netns: None,
                ..
            })
        ));
        let generic = target(r#"{"xdp": {"ifindex": 3, "mode": "generic", "netns": null}}"#);
        assert!(matches!(
            generic,
            Target::Xdp(Interface {
                mode: Mode::Generic,
                ..
            })
        ));
    }

    #[test]
    fn a_line_without_a_readable_id_is_answered_without_one() {
        for line in [
            "",
            " ",
            "what",
            "[]",
            "7",
            "null",
            r#"{"id": 1, "do": "close", "object": 2"#,
            r#"{"id": 1, "do": "close", "object": 2} {"#,
            r#"{"do": "close", "object": 2}"#,
            r#"{"id": "1", "do": "close", "object": 2}"#,
            r#"{"id": -1, "do": "close", "object": 2}"#,
            r#"{"id": 1.5, "do": "close", "object": 2}"#,
        ] {
            let (id, why) = refused(line);
            assert_eq!(id, None, "{line}");
            assert!(!why.is_empty(), "{line}");
        }
    }

    #[test]
    fn what_is_not_utf8_is_malformed() {
        assert_eq!(
            refused(b"{\"id\": 1, \"do\": \"open\", \"path\": \"\xff\", \"max_entries\": {}}").0,
            None
        );
        assert_eq!(refused(b"\xff\xfe").0, None);
    }

    #[test]
    fn a_malformed_request_keeps_its_id() {
        for (line, part) in [
            (r#"{"id": 4}"#, "do"),
            (r#"{"id": 4, "do": "dance"}"#, "dance"),
            (r#"{"id": 4, "do": 5}"#, "5"),
            (r#"{"id": 4, "do": "close"}"#, "missing field `object`"),
            (r#"{"id": 4, "do": "close", "object": "2"}"#, "string"),
            (r#"{"id": 4, "do": "close", "object": -2}"#, "-2"),
            (r#"{"id": 4, "do": "close", "object": 2, "force": true}"#, "force"),
            (r#"{"id": 4, "do": "load", "object": 2}"#, "missing field `program`"),
            (
                r#"{"id": 4, "do": "open", "path": "/a.o"}"#,
                "missing field `max_entries`",
            ),
            (
                r#"{"id": 4, "do": "open", "path": "/a.o", "max_entries": {"m": 4294967296}}"#,
                "4294967296",
            ),
            (
                r#"{"id": 4, "do": "get", "object": 2, "map": "m", "key": "0"}"#,
                "pairs",
            ),
            (
                r#"{"id": 4, "do": "get", "object": 2, "map": "m", "key": "0A"}"#,
                "lower case",
            ),
            (
                r#"{"id": 4, "do": "get", "object": 2, "map": "m", "key": "ää"}"#,
                "hexadecimal",
            ),
            (
                r#"{"id": 4, "do": "get", "object": 2, "map": "m", "key": [0]}"#,
                "sequence",
            ),
        ] {
            let (id, why) = refused(line);
            assert_eq!(id, Some(4), "{line}");
            assert!(why.contains(part), "{line}: {why}");
        }
    }

    #[test]
    fn a_malformed_target_is_refused() {
        for target in [
            r#""kprobe""#,
            r"{}",
            r#"{"uprobe": "f"}"#,
            r#"{"kprobe": 3}"#,
            r#"{"kprobe": "f", "tracepoint": {"category": "c", "name": "n"}}"#,
            r#"{"tracepoint": {"category": "c"}}"#,
            r#"{"tracepoint": ["c", "n"]}"#,
            r#"{"tracepoint": {"category": "c", "name": "n", "cpu": 0}}"#,
            r#"{"xdp": {"ifindex": 3, "mode": "native"}}"#,
            r#"{"xdp": {"ifindex": 3, "mode": "fast", "netns": null}}"#,
            r#"{"xdp": {"ifindex": 4294967296, "mode": "native", "netns": null}}"#,
        ] {
            let line = format!(r#"{{"id": 4, "do": "attach", "object": 2, "program": "p", "target": {target}}}"#);
            assert_eq!(refused(&line).0, Some(4), "{line}");
        }
    }

    #[test]
    fn bytes_are_hexadecimal_both_ways() {
        let all = Bytes((0..=255).collect());
        let text = serde_json::to_string(&all).expect("a string");
        assert!(text.starts_with("\"000102") && text.ends_with("fdfeff\""));
        assert_eq!(serde_json::from_str::<Bytes>(&text).expect("the same"), all);
    }

    #[test]
    fn replies_are_written_as_the_protocol_has_them() {
        let reply = Reply::Result {
            id: 7,
            result: Answer::Link { link: 3 },
        };
        assert_eq!(json!(reply), json!({"id": 7, "result": {"link": 3}}));
        assert_eq!(json!(Answer::Done {}), json!({}));
        assert_eq!(json!(Answer::Value { value: None }), json!({"value": null}));
        let failure = Failure::absent(crate::failure::Stage::TestRun, "program", "p");
        assert_eq!(
            json!(Reply::Error { id: 8, error: failure }),
            json!({"id": 8, "error": {
                "stage": "test_run", "errno": 2, "what": "p", "message": "the object has no program `p`", "log": "",
            }})
        );
        assert_eq!(
            json!(Reply::malformed(None, "x")),
            json!({"id": null, "malformed": "x"})
        );
    }

    #[test]
    fn the_reported_version_is_the_one_that_is_built() {
        assert!(include_str!("../Cargo.toml").contains(&format!("\naya = \"={AYA}\"\n")));
    }
}
