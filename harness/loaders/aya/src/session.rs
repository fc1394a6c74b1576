//! What is open, by its number, and the answer to each request.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{MapData, MapError, RingBuf};
use aya::programs::Program;
use aya::{Ebpf, EbpfError, EbpfLoader};

use crate::failure::{Failure, Stage};
use crate::maps::{self, Access};
use crate::programs::{self, Attachment};
use crate::protocol::{Answer, Bytes, Reply, Request, Step, Target};

#[derive(Default)]
pub(crate) struct Session {
    objects: BTreeMap<u64, Object>,
    links: BTreeMap<u64, Link>,
    rings: BTreeMap<u64, Ring>,
    last: u64,
}

struct Object {
    ebpf: Ebpf,
    /// the ring buffers that `ring_buffer` has taken out of it
    taken: BTreeSet<String>,
}

struct Link {
    object: u64,
    program: String,
    attachment: Attachment,
}

struct Ring {
    object: u64,
    buffer: RingBuf<MapData>,
}

/// Why a request has no result.
enum Refusal {
    Failure(Failure),
    /// it names what is not open
    Unknown(String),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Session {
    pub(crate) fn answer(&mut self, Request { id, step }: Request) -> Reply {
        match self.take(step) {
            Ok(result) => Reply::Result { id, result },
            Err(Refusal::Failure(error)) => Reply::Error { id, error },
            Err(Refusal::Unknown(what)) => Reply::malformed(Some(id), format!("no {what}")),
        }
    }

    /// Detach and close everything; return what was refused.
    pub(crate) fn close_all(&mut self) -> Vec<Failure> {
        let objects: Vec<u64> = self.objects.keys().copied().collect();
        objects.into_iter().flat_map(|object| self.close(object)).collect()
    }

    fn take(&mut self, step: Step) -> Result<Answer, Refusal> {
        match step {
            Step::Open { path, max_entries } => Ok(self.open(&path, &max_entries)?),
            Step::Load { object, program } => {
                load(&mut self.object(object)?.ebpf, program.as_deref())?;
                Ok(Answer::Done {})
            }
            Step::Attach {
                object,
                program,
                target,
            } => self.attach(object, program, &target),
            Step::Detach { link } => {
                let link = self
                    .links
                    .remove(&link)
                    .ok_or_else(|| Refusal::Unknown(format!("link {link}")))?;
                self.detach(link)?;
                Ok(Answer::Done {})
            }
            Step::Get { object, map, key } => {
                let value = self.object(object)?.map(&map, Stage::Lookup)?.get(&key.0)?;
                Ok(Answer::Value { value })
            }
            Step::GetEachCpu { object, map, key } => {
                let values = self.object(object)?.map(&map, Stage::Lookup)?.get_each_cpu(&key.0)?;
                Ok(Answer::Values { values })
            }
            Step::Put {
                object,
                map,
                key,
                value,
            } => {
                self.object(object)?.map(&map, Stage::Update)?.put(&key.0, &value.0)?;
                Ok(Answer::Done {})
            }
            Step::Keys { object, map } => {
                let keys = self.object(object)?.map(&map, Stage::Lookup)?.keys()?;
                Ok(Answer::Keys { keys })
            }
            Step::RingBuffer { object, map } => {
                let buffer = self.object(object)?.ring_buffer(&map)?;
                let ring = self.number();
                self.rings.insert(ring, Ring { object, buffer });
                Ok(Answer::Ring { ring })
            }
            Step::Consume { ring } => self.consume(ring),
            Step::TestRun { object, program, data } => {
                let ebpf = &mut self.object(object)?.ebpf;
                let found = program_of(ebpf, &program, Stage::TestRun)?;
                let (verdict, data) = programs::test_run(&program, found, &data.0)?;
                Ok(Answer::Verdict {
                    verdict,
                    data: Bytes(data),
                })
            }
            Step::Close { object } => {
                self.object(object)?;
                match self.close(object).into_iter().next() {
                    Some(failure) => Err(failure.into()),
                    None => Ok(Answer::Done {}),
                }
            }
        }
    }

    fn open(&mut self, path: &str, max_entries: &BTreeMap<String, u32>) -> Result<Answer, Failure> {
        raise_memory_limit();
        let mut loader = EbpfLoader::new();
        for (name, entries) in max_entries {
            loader.map_max_entries(name, *entries);
        }
        let ebpf = loader.load_file(path).map_err(|error| match &error {
            EbpfError::MapError(MapError::CreateError { name, .. }) => {
                Failure::of(Stage::MapCreate, name.clone(), &error)
            }
            _ => Failure::of(Stage::Open, path, &error),
        })?;
        // aya passes over a name that the object does not have
        if let Some(name) = max_entries.keys().find(|name| ebpf.map(name).is_none()) {
            return Err(Failure::absent(Stage::Open, "map", name));
        }
        let maps = maps::describe(&ebpf)?;
        let types = ebpf
            .programs()
            .map(|(name, program)| (name.to_owned(), programs::type_name(program)))
            .collect();
        let object = self.number();
        self.objects.insert(
            object,
            Object {
                ebpf,
                taken: BTreeSet::new(),
            },
        );
        Ok(Answer::Object {
            object,
            programs: types,
            maps,
        })
    }

    fn attach(&mut self, object: u64, program: String, target: &Target) -> Result<Answer, Refusal> {
        let found = program_of(&mut self.object(object)?.ebpf, &program, Stage::Attach)?;
        let attachment = programs::attach(&program, found, target)?;
        let link = self.number();
        self.links.insert(
            link,
            Link {
                object,
                program,
                attachment,
            },
        );
        Ok(Answer::Link { link })
    }

    fn detach(
        &mut self,
        Link {
            object,
            program,
            attachment,
        }: Link,
    ) -> Result<(), Failure> {
        let object = self.objects.get_mut(&object).expect("an object outlives its links");
        let found = program_of(&mut object.ebpf, &program, Stage::Detach)?;
        programs::detach(&program, found, attachment)
    }

    fn consume(&mut self, number: u64) -> Result<Answer, Refusal> {
        let ring = self
            .rings
            .get_mut(&number)
            .ok_or_else(|| Refusal::Unknown(format!("ring {number}")))?;
        let mut records = Vec::new();
        while let Some(record) = ring.buffer.next() {
            records.push(Bytes(record.to_vec()));
        }
        Ok(Answer::Records { records })
    }

    /// Detach an object's links and close it; return what was refused.
    fn close(&mut self, object: u64) -> Vec<Failure> {
        // one by one and not by dropping the object: aya drops links without a word, and in the wrong namespace
        let links: Vec<Link> = self
            .links
            .extract_if(.., |_, link| link.object == object)
            .map(|(_, link)| link)
            .collect();
        let failures = links.into_iter().filter_map(|link| self.detach(link).err()).collect();
        self.rings.retain(|_, ring| ring.object != object);
        self.objects.remove(&object);
        failures
    }

    fn object(&mut self, number: u64) -> Result<&mut Object, Refusal> {
        self.objects
            .get_mut(&number)
            .ok_or_else(|| Refusal::Unknown(format!("object {number}")))
    }

    /// Return a number that was not used before, not even for another kind of thing.
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Drop for Session {
    /// Detach what is left after a panic; otherwise nothing is.
    fn drop(&mut self) {
        self.close_all();
    }
}

impl Object {
    fn map<'a>(&'a mut self, name: &'a str, stage: Stage) -> Result<Access<'a>, Failure> {
        if self.taken.contains(name) {
            return Err(Failure::refused(
                stage,
                name,
                "the map is a ring buffer and has a consumer",
            ));
        }
        Access::new(&mut self.ebpf, name, stage)
    }

    fn ring_buffer(&mut self, name: &str) -> Result<RingBuf<MapData>, Failure> {
        if self.taken.contains(name) {
            return Err(Failure::refused(
                Stage::Open,
                name,
                "the ring buffer has a consumer already",
            ));
        }
        let buffer = maps::ring_buffer(&mut self.ebpf, name)?;
        self.taken.insert(name.to_owned());
        Ok(buffer)
    }
}

fn program_of<'a>(ebpf: &'a mut Ebpf, name: &str, stage: Stage) -> Result<&'a mut Program, Failure> {
    ebpf.program_mut(name)
        .ok_or_else(|| Failure::absent(stage, "program", name))
}

/// Load a program, or all that are not loaded, in the order of their names; stop at the first refusal.
fn load(ebpf: &mut Ebpf, program: Option<&str>) -> Result<(), Failure> {
    if let Some(name) = program {
        return programs::load(name, program_of(ebpf, name, Stage::Load)?);
    }
    let all: BTreeMap<&str, &mut Program> = ebpf.programs_mut().collect();
    all.into_iter()
        .filter(|(_, program)| !programs::is_loaded(program))
        .try_for_each(|(name, program)| programs::load(name, program))
}

/// Lift the limit of locked memory, as aya's template does: kernels before 5.11 count maps and programs in it. A refusal
/// is only logged there, too.
fn raise_memory_limit() {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: setrlimit reads the struct
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } != 0 {
        crate::log(&format!(
            "cannot lift the limit of locked memory: {}",
            std::io::Error::last_os_error()
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reply(line: &str) -> Value {
        let request = Request::parse(line.as_bytes()).expect("a request");
        json!(Session::default().answer(request))
    }

    #[test]
    fn a_number_that_names_nothing_is_malformed() {
        for (line, what) in [
            (
                r#"{"id": 1, "do": "load", "object": 2, "program": null}"#,
                "no object 2",
            ),
            (
                r#"{"id": 1, "do": "attach", "object": 2, "program": "p", "target": {"kprobe": "f"}}"#,
                "no object 2",
            ),
            (r#"{"id": 1, "do": "detach", "link": 3}"#, "no link 3"),
            (
                r#"{"id": 1, "do": "get", "object": 2, "map": "m", "key": "00"}"#,
                "no object 2",
            ),
            (
                r#"{"id": 1, "do": "get_each_cpu", "object": 2, "map": "m", "key": "00"}"#,
                "no object 2",
            ),
            (
                r#"{"id": 1, "do": "put", "object": 2, "map": "m", "key": "00", "value": "00"}"#,
                "no object 2",
            ),
            (r#"{"id": 1, "do": "keys", "object": 2, "map": "m"}"#, "no object 2"),
            (
                r#"{"id": 1, "do": "ring_buffer", "object": 2, "map": "m"}"#,
                "no object 2",
            ),
            (r#"{"id": 1, "do": "consume", "ring": 4}"#, "no ring 4"),
            (
                r#"{"id": 1, "do": "test_run", "object": 2, "program": "p", "data": ""}"#,
                "no object 2",
            ),
            (r#"{"id": 1, "do": "close", "object": 2}"#, "no object 2"),
        ] {
            assert_eq!(reply(line), json!({"id": 1, "malformed": what}), "{line}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_not_opened() {
        let reply = reply(r#"{"id": 1, "do": "open", "path": "/nonexistent/a.o", "max_entries": {}}"#);
        assert_eq!(
            reply["error"],
            json!({
                "stage": "open",
                "errno": libc::ENOENT,
                "what": "/nonexistent/a.o",
                "message": "error loading /nonexistent/a.o: No such file or directory (os error 2)",
                "log": "",
            })
        );
    }

    #[test]
    fn a_file_that_is_no_object_is_not_opened() {
        let reply = reply(r#"{"id": 1, "do": "open", "path": "/proc/self/stat", "max_entries": {}}"#);
        assert_eq!(reply["error"]["stage"], "open");
        assert_eq!(reply["error"]["errno"], 0);
        assert!(
            reply["error"]["message"]
                .as_str()
                .is_some_and(|words| words.contains("ELF")),
            "{reply}"
        );
    }
}
