//! Random steps. Names come from a small set, so that operations meet one another; some of all
//! arguments are bad.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use orch::jute::{Acl, Id, Op};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::asks::Ask;
use super::side::Hello;

/// Sessions that live at the same time.
const SESSIONS: usize = 4;
/// Numbered names that are used again.
const NUMBERED: usize = 12;

/// What happens next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Connect {
        session: usize,
        hello: Hello,
        timeout: i32,
        old_client: bool,
    },
    /// The session goes on, on a new connection, and tells of its watches.
    Drop {
        session: usize,
    },
    Close {
        session: usize,
    },
    Ask {
        session: usize,
        asks: Vec<Ask>,
    },
}

/// Kinds of watches that one session may have on one path: ZooKeeper up to 3.8 mixes them up
/// (ZOOKEEPER-4466), so that each path has one kind in each session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Once,
    Persistent,
    Recursive,
}

/// Makes steps.
#[derive(Debug)]
pub struct Generator {
    rng: StdRng,
    top: String,
    /// Sessions that have not ended.
    alive: Vec<usize>,
    sessions: usize,
    numbered: VecDeque<String>,
    kinds: BTreeMap<(usize, String), Kind>,
    /// Who has ever watched a path: ZooKeeper up to 3.8 answers for other sessions' watches too
    /// when it is asked whether there is one.
    watchers: BTreeMap<String, BTreeSet<usize>>,
}

impl Generator {
    /// Everything is below `top`, which is there.
    pub fn new(seed: u64, top: &str) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            top: top.to_owned(),
            alive: Vec::new(),
            sessions: 0,
            numbered: VecDeque::new(),
            kinds: BTreeMap::new(),
            watchers: BTreeMap::new(),
        }
    }

    /// A node was made under this path.
    pub fn made(&mut self, path: &str) {
        self.numbered.push_back(path.to_owned());
        if self.numbered.len() > NUMBERED {
            self.numbered.pop_front();
        }
    }

    /// A session has ended.
    pub fn ended(&mut self, session: usize) {
        self.alive.retain(|alive| *alive != session);
    }

    /// Sessions that have not ended.
    pub fn alive(&self) -> &[usize] {
        &self.alive
    }

    /// The next step; `connected` says which sessions have a connection.
    pub fn step(&mut self, connected: impl Fn(usize) -> bool) -> Step {
        if self.alive.is_empty() || (self.alive.len() < SESSIONS && self.chance(10)) {
            let session = self.sessions;
            self.sessions += 1;
            self.alive.push(session);
            let timeout = *self.pick(&[30_000, 30_000, 40_000, 35_000, 1_000_000]);
            let old_client = self.chance(10);
            return Step::Connect { session, hello: Hello::New, timeout, old_client };
        }
        let session = *self.pick(&self.alive.clone());
        if !connected(session) {
            let hello = *self.pick(&[
                Hello::Again,
                Hello::Again,
                Hello::Again,
                Hello::WrongPassword,
                Hello::Unknown,
                Hello::Ahead,
            ]);
            return Step::Connect { session, hello, timeout: 30_000, old_client: self.chance(10) };
        }
        match self.rng.random_range(0..1000) {
            0..15 => Step::Drop { session },
            15..25 => Step::Close { session },
            25..32 => {
                let hello = Hello::Beside;
                Step::Connect { session, hello, timeout: 30_000, old_client: false }
            }
            32..132 => {
                let count = self.rng.random_range(2..7);
                let mut asks: Vec<_> = (0..count).map(|_| self.ask(session)).collect();
                // ZooKeeper judges what comes right behind a `setACL` by the list before it.
                asks.retain(|ask| !ask.goes_alone() && !matches!(ask, Ask::SetAcl { .. }));
                Step::Ask { session, asks }
            }
            _ => Step::Ask { session, asks: vec![self.ask(session)] },
        }
    }

    fn ask(&mut self, session: usize) -> Ask {
        match self.rng.random_range(0..1000) {
            0..260 => self.create(false),
            260..370 => self.delete(),
            370..470 => self.set(),
            470..640 => self.look(session),
            640..670 => Ask::Path { op: Op::GetAcl, path: self.path() },
            670..700 => {
                let (path, acl, version) = (self.path(), self.acl(), self.version());
                Ask::SetAcl { path, acl, version }
            }
            700..780 => self.multi(),
            780..810 => {
                let count = self.rng.random_range(0..4);
                let ops = [Op::GetData, Op::GetChildren];
                Ask::MultiRead((0..count).map(|_| (*self.pick(&ops), self.path())).collect())
            }
            810..840 => self.add_watch(session),
            840..870 => self.watches(session),
            870..890 => self.set_watches(session),
            890..900 => Ask::Path { op: Op::Sync, path: self.path() },
            900..915 => Ask::Path { op: Op::GetEphemerals, path: self.path() },
            915..930 => match self.path() {
                // The root by that name has more nodes below it, at ZooKeeper.
                path if path.is_empty() => Ask::Ping,
                path => Ask::Path { op: Op::GetAllChildrenNumber, path },
            },
            930..945 => Ask::WhoAmI,
            945..955 => Ask::Ping,
            955..975 => self.auth(),
            // No `check` outside of a multi: ZooKeeper never answers one that is right.
            975..980 => Ask::Sasl(b"token".to_vec()),
            _ => self.odd(),
        }
    }

    fn create(&mut self, in_multi: bool) -> Ask {
        let ops = [Op::Create2, Op::Create2, Op::Create, Op::CreateContainer, Op::CreateTtl];
        // In a multi, ZooKeeper up to 3.9 takes `create2` for `create`, and goes by the flags
        // alone.
        let op = *self.pick(if in_multi { &ops[2..] } else { &ops });
        let usual: &[i32] = match op {
            Op::CreateContainer => &[4],
            Op::CreateTtl => &[5, 6],
            _ => &[0, 0, 0, 1, 2, 3],
        };
        let flags = match !in_multi && self.chance(4) {
            true => *self.pick(&[-1, 0, 1, 2, 3, 4, 5, 6, 7, 100]),
            false => *self.pick(usual),
        };
        let ttl = match self.chance(10) {
            true => *self.pick(&[0, -1, i64::MIN, 0x00ff_ffff_ffff, 0x0100_0000_0000, i64::MAX]),
            false => 3_600_000,
        };
        let mut path = self.path();
        if matches!(flags, 2 | 3 | 6) && self.chance(30) {
            let suffix: &str = self.pick::<&str>(&["/", "-", "/q-"]);
            path.push_str(suffix);
        }
        let (data, acl) = (self.data(), self.acl());
        Ask::Create { op, path, data, acl, flags, ttl }
    }

    fn delete(&mut self) -> Ask {
        Ask::Version { op: Op::Delete, path: self.path(), version: self.version() }
    }

    fn set(&mut self) -> Ask {
        Ask::Set { path: self.path(), data: self.data(), version: self.version() }
    }

    fn look(&mut self, session: usize) -> Ask {
        let ops = [Op::Exists, Op::GetData, Op::GetChildren, Op::GetChildren2];
        let (op, path) = (*self.pick(&ops), self.path());
        let watch = self.chance(40) && self.may_watch(session, &path, Kind::Once);
        Ask::Look { op, path, watch }
    }

    fn multi(&mut self) -> Ask {
        let count = self.rng.random_range(0..5);
        let op = |own: &mut Self| match own.rng.random_range(0..10) {
            0..4 => own.create(true),
            4..6 => own.delete(),
            6..8 => own.set(),
            _ => Ask::Version { op: Op::Check, path: own.path(), version: own.version() },
        };
        Ask::Multi((0..count).map(|_| op(self)).collect())
    }

    fn add_watch(&mut self, session: usize) -> Ask {
        let (path, mode) = (self.path(), self.rng.random_range(0..2));
        let kind = if mode == 0 { Kind::Persistent } else { Kind::Recursive };
        match self.may_watch(session, &path, kind) {
            true => Ask::AddWatch { path, mode },
            false => Ask::Ping,
        }
    }

    fn watches(&mut self, session: usize) -> Ask {
        // Kinds 4 and 5 are known from 3.9 on.
        let (path, kind) = (self.path(), *self.pick(&[1, 1, 2, 2, 3, 3, 0, 9]));
        let op = *self.pick(&[Op::CheckWatches, Op::RemoveWatches]);
        // For persistent watches the answer changed with 3.9.
        let once = self.kinds.get(&(session, path.clone())).is_none_or(|kind| *kind == Kind::Once);
        let mine = self.watchers.get(&path).is_none_or(|all| all.iter().all(|one| *one == session));
        match once && mine {
            true => Ask::Watches { op, path, kind },
            false => Ask::Ping,
        }
    }

    fn set_watches(&mut self, session: usize) -> Ask {
        let with_persistent = self.chance(50);
        let mut lists: [Vec<String>; 5] = Default::default();
        let kinds = [Kind::Once, Kind::Once, Kind::Once, Kind::Persistent, Kind::Recursive];
        let last = if with_persistent { 5 } else { 3 };
        for (list, kind) in lists.iter_mut().zip(kinds).take(last) {
            for _ in 0..self.rng.random_range(0..3) {
                let path = self.path();
                if self.may_watch(session, &path, kind) {
                    list.push(path);
                }
            }
        }
        Ask::SetWatches { with_persistent, recent: self.chance(70), lists }
    }

    fn auth(&mut self) -> Ask {
        let known: [(&str, &[u8]); 5] = [
            ("digest", b"ann:one"),
            ("digest", b"bob:two"),
            ("digest", b"super:test"),
            ("ip", b""),
            ("digest", b"ann:wrong"),
        ];
        let odd: [(&str, &[u8]); 4] =
            [("nothing", b"x"), ("", b""), ("world", b"anyone"), ("auth", b"")];
        let (scheme, auth) = match self.chance(6) {
            true => *self.pick(&odd),
            false => *self.pick(&known),
        };
        Ask::Auth { scheme: scheme.to_owned(), auth: auth.to_vec() }
    }

    /// What no client of any library would send.
    fn odd(&mut self) -> Ask {
        match self.rng.random_range(0..6) {
            0 => Ask::Raw { op: *self.pick(&[10, 99, 1000, -7]), body: Vec::new() },
            1 => Ask::Raw { op: Op::Create.number(), body: vec![0, 0, 0, 9, b'/'] },
            2 => Ask::Raw { op: Op::GetData.number(), body: Vec::new() },
            3 => Ask::Raw { op: Op::Multi.number(), body: vec![0, 0, 0, 1, 0] },
            4 => Ask::AddWatch { path: self.path(), mode: 7 },
            _ => Ask::Raw { op: Op::SetData.number(), body: vec![0xff; 12] },
        }
    }

    fn may_watch(&mut self, session: usize, path: &str, kind: Kind) -> bool {
        let known = self.kinds.entry((session, path.to_owned())).or_insert(kind);
        if *known == kind {
            self.watchers.entry(path.to_owned()).or_default().insert(session);
        }
        *known == kind
    }

    fn path(&mut self) -> String {
        if self.chance(3) {
            return self.bad_path();
        }
        if self.chance(15)
            && let Some(path) = self.numbered.get(self.rng.random_range(0..NUMBERED))
        {
            return path.clone();
        }
        if self.chance(2) {
            return self.pick(&["/", "/zookeeper", "/zookeeper/quota"]).to_string();
        }
        let mut path = self.top.clone();
        let names = ["a", "b", "c", "\u{e4}\u{4e2d}"];
        for _ in 0..*self.pick(&[0, 1, 1, 1, 1, 2, 2, 2, 3, 3]) {
            let name: &str = self.pick::<&str>(&names);
            path.push('/');
            path.push_str(name);
        }
        path
    }

    fn bad_path(&mut self) -> String {
        let top = self.top.clone();
        match self.rng.random_range(0..10) {
            0 => String::new(),
            1 => "a".to_owned(),
            2 => format!("{top}/"),
            3 => format!("/{top}"),
            4 => format!("{top}//a"),
            5 => format!("{top}/./a"),
            6 => format!("{top}/a/.."),
            7 => format!("{top}/a\u{0}"),
            8 => format!("{top}/a\u{1}b"),
            _ => format!("{top}/\u{f8ff}"),
        }
    }

    fn version(&mut self) -> i32 {
        *self.pick(&[-1, -1, -1, -1, 0, 0, 1, 2, -2, i32::MAX])
    }

    fn data(&mut self) -> Option<Vec<u8>> {
        match self.rng.random_range(0..10) {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some(vec![b'x'; 5000]),
            number => Some(vec![number; usize::from(number)]),
        }
    }

    fn acl(&mut self) -> Vec<Acl> {
        let acl = |scheme: &str, id: &str, perms| Acl {
            perms,
            id: Id { scheme: scheme.to_owned(), id: id.to_owned() },
        };
        let ann = "ann:grDcJ7OS1jCu/cG2TyJHw/I9L8o=";
        match self.rng.random_range(0..200) {
            0..150 => vec![Acl::open()],
            150..156 => vec![acl("world", "anyone", self.rng.random_range(0..32))],
            156..162 => vec![acl("digest", ann, 31), acl("world", "anyone", 1)],
            162..166 => vec![acl("digest", ann, self.rng.random_range(0..32))],
            166..172 => vec![acl("auth", "", 31)],
            172..176 => vec![acl("auth", "ignored", 15), acl("world", "anyone", 31)],
            176..180 => vec![acl("ip", "127.0.0.1", 31)],
            180..184 => vec![acl("ip", "127.0.0.0/8", 31)],
            184..186 => vec![acl("ip", "10.0.0.0/8", 31), acl("world", "anyone", 3)],
            186..188 => vec![acl("ip", "nonsense", 31)],
            188..190 => vec![acl("digest", "nocolon", 31)],
            190..192 => vec![Acl::open(), Acl::open()],
            192..194 => vec![acl("world", "somebody", 31)],
            194..196 => vec![acl("unknown", "x", 31)],
            196..198 => vec![acl("world", "anyone", 77)],
            _ => Vec::new(),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.rng.random_range(0..from.len())]
    }
}
