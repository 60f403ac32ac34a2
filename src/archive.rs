//! Trees of files as tar streams.
//!
//! What is packed is read as it is: a link is a link. What is unpacked never leaves the directory
//! it is for, whatever the stream says: no `..`, no absolute names, nothing through links. For
//! threads that may block; holds one piece of a file at a time.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tar::{Archive, Builder, Entry, EntryType, Header};

/// Why a tree can't be packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file or directory can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The stream is no tar, or ends before its end.
    #[error("the stream can't be read as tar: {0}")]
    Stream(io::Error),
    /// The stream can't be written.
    #[error("the stream can't be written: {0}")]
    Sink(io::Error),
    /// An entry would lead out of the directory, or has no place in it.
    #[error("{}: {why}", path.display())]
    Refused {
        /// The entry's name.
        path: PathBuf,
        /// Why it is refused.
        why: String,
    },
}

impl ArchiveError {
    /// Whether it is about something that is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ArchiveError + use<> {
    let path = path.to_owned();
    |source| ArchiveError::File { path, source }
}

fn refused(path: &Path, why: impl Into<String>) -> ArchiveError {
    ArchiveError::Refused { path: path.to_owned(), why: why.into() }
}

// --- packing ---

/// Writes `path`, with all below it if it is a directory, as entries that begin with `name`.
///
/// Sockets, pipes and devices are left out. A link is written as a link.
///
/// # Errors
/// If something can't be read, or `to` not be written.
pub fn pack(path: &Path, name: &Path, to: impl Write) -> Result<(), ArchiveError> {
    let broken = Rc::new(Cell::new(false));
    let mut builder = Builder::new(Unbroken { to, broken: broken.clone() });
    builder.follow_symlinks(false);
    builder.sparse(false);
    let packed = append_all(&mut builder, path, name);
    // Let go of, a builder writes the end mark: what is cut off must not look whole.
    broken.set(packed.is_err());
    packed?;
    builder.finish().map_err(ArchiveError::Sink)?;
    builder.into_inner().and_then(|mut to| to.flush()).map_err(ArchiveError::Sink)
}

/// Takes nothing more once it is broken.
struct Unbroken<W> {
    to: W,
    broken: Rc<Cell<bool>>,
}

impl<W: Write> Write for Unbroken<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.broken.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn append_all(
    builder: &mut Builder<impl Write>,
    path: &Path,
    name: &Path,
) -> Result<(), ArchiveError> {
    // A directory at a time, not a call deeper for each: names may nest as deep as they like.
    let mut waiting = vec![(path.to_owned(), name.to_owned())];
    while let Some((path, name)) = waiting.pop() {
        let data = fs::symlink_metadata(&path).map_err(at(&path))?;
        if !append(builder, &path, &name, &data)? {
            continue;
        }
        let mut below = Vec::new();
        for entry in fs::read_dir(&path).map_err(at(&path))? {
            let entry = entry.map_err(at(&path))?;
            below.push((entry.path(), name.join(entry.file_name())));
        }
        // The last of the list is the next.
        below.sort_by(|left, right| right.cmp(left));
        waiting.extend(below);
    }
    Ok(())
}

/// Writes one entry; whether it is a directory.
fn append(
    builder: &mut Builder<impl Write>,
    path: &Path,
    name: &Path,
    data: &Metadata,
) -> Result<bool, ArchiveError> {
    let kind = data.file_type();
    let mut header = Header::new_gnu();
    header.set_metadata(data);
    if kind.is_dir() {
        // Without a name of its own the directory itself is no entry: only what is in it.
        if !name.as_os_str().is_empty() {
            header.set_size(0);
            builder.append_data(&mut header, name, io::empty()).map_err(ArchiveError::Sink)?;
        }
        return Ok(true);
    }
    if kind.is_symlink() {
        let target = fs::read_link(path).map_err(at(path))?;
        header.set_size(0);
        builder.append_link(&mut header, name, target).map_err(ArchiveError::Sink)?;
    } else if kind.is_file() {
        let file = File::open(path).map_err(at(path))?;
        // As long as it was: what is written to it meanwhile must not make the stream nonsense.
        let exactly = Exactly { file, left: data.len() };
        builder.append_data(&mut header, name, exactly).map_err(ArchiveError::Sink)?;
    } else if !(kind.is_socket()
        || kind.is_fifo()
        || kind.is_block_device()
        || kind.is_char_device())
    {
        return Err(refused(path, "it is of no known kind"));
    }
    Ok(false)
}

/// A file's first bytes, so many and no other number: what it has lost meanwhile is zeros.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let Some(room) = bytes.get_mut(..most).filter(|room| !room.is_empty()) else {
            return Ok(0);
        };
        let mut read = self.file.read(room)?;
        if read == 0 {
            room.fill(0);
            read = most;
        }
        self.left -= read as u64;
        Ok(read)
    }
}

// --- unpacking ---

/// What becomes of the first part of each entry's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Top {
    /// It stays.
    Keep,
    /// It becomes another: what is copied gets a new name.
    Rename(OsString),
    /// It goes: only what is in a directory is copied.
    Drop,
}

impl Top {
    /// The entry's place below the destination; empty for that itself.
    fn place(&self, name: &Path) -> Result<PathBuf, ArchiveError> {
        let mut parts: Vec<&OsStr> = Vec::new();
        for part in name.components() {
            match part {
                Component::Normal(part) => parts.push(part),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(refused(name, "the name leads out of the directory"));
                }
            }
        }
        let place = match self {
            Self::Keep => parts.iter().collect(),
            Self::Rename(to) if !parts.is_empty() => {
                std::iter::once(&to.as_os_str()).chain(parts.iter().skip(1)).collect()
            }
            Self::Rename(_) | Self::Drop => parts.iter().skip(1).collect(),
        };
        Ok(place)
    }
}

/// Puts the entries of a stream below the directory `into`, which must be there. What has a name
/// already is replaced, directories are filled. Sockets, pipes and devices are left out.
///
/// # Errors
/// If the stream makes no sense, an entry is refused, or something can't be written. What came
/// before stays.
pub fn unpack(from: impl Read, into: &Path, top: &Top) -> Result<(), ArchiveError> {
    let mut archive = Archive::new(from);
    for entry in archive.entries().map_err(ArchiveError::Stream)? {
        let mut entry = entry.map_err(ArchiveError::Stream)?;
        let name = entry.path().map_err(ArchiveError::Stream)?.into_owned();
        let place = top.place(&name)?;
        if place.as_os_str().is_empty() {
            continue;
        }
        let kind = entry.header().entry_type();
        let target = prepare(into, &place, &name)?;
        match kind {
            EntryType::Directory => directory(&target, &entry)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                file(&target, &mut entry)?;
            }
            EntryType::Symlink => {
                let to = link_name(&entry, &name)?;
                make_room(&target)?;
                std::os::unix::fs::symlink(to, &target).map_err(at(&target))?;
            }
            EntryType::Link => {
                let to = prepare(into, &top.place(&link_name(&entry, &name)?)?, &name)?;
                let data = fs::symlink_metadata(&to).map_err(at(&to))?;
                if !data.is_file() {
                    return Err(refused(&name, "it is a second name of something that is no file"));
                }
                make_room(&target)?;
                fs::hard_link(&to, &target).map_err(at(&target))?;
            }
            _ => {}
        }
    }
    // What follows the end mark belongs to the sender's last piece.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(ArchiveError::Stream)?;
    Ok(())
}

/// The full path of a place, with the directories above it; none of them may be a link.
fn prepare(into: &Path, place: &Path, name: &Path) -> Result<PathBuf, ArchiveError> {
    let mut path = into.to_owned();
    for part in place.parent().into_iter().flat_map(Path::components) {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(data) if data.is_dir() => {}
            Ok(data) if data.is_symlink() => {
                return Err(refused(name, format!("it leads through the link {}", path.display())));
            }
            Ok(_) => {
                return Err(refused(name, format!("{} is no directory", path.display())));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&path).map_err(at(&path))?;
            }
            Err(error) => return Err(at(&path)(error)),
        }
    }
    Ok(into.join(place))
}

/// Frees a name for something that is no directory.
fn make_room(target: &Path) -> Result<(), ArchiveError> {
    match fs::symlink_metadata(target) {
        Ok(data) if data.is_dir() => Err(refused(target, "there is a directory of that name")),
        Ok(_) => fs::remove_file(target).map_err(at(target)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at(target)(error)),
    }
}

/// The bits that give rights; none that lend the owner's.
fn permissions(entry: &Entry<'_, impl Read>) -> Permissions {
    Permissions::from_mode(entry.header().mode().unwrap_or(0o644) & 0o777)
}

fn directory(target: &Path, entry: &Entry<'_, impl Read>) -> Result<(), ArchiveError> {
    match fs::symlink_metadata(target) {
        Ok(data) if data.is_dir() => return Ok(()),
        Ok(_) => return Err(refused(target, "there is something of that name, and no directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(target)(error)),
    }
    fs::create_dir(target).map_err(at(target))?;
    // Whoever unpacks must be able to fill it.
    let mode = permissions(entry).mode() | 0o700;
    fs::set_permissions(target, Permissions::from_mode(mode)).map_err(at(target))
}

fn file(target: &Path, entry: &mut Entry<'_, impl Read>) -> Result<(), ArchiveError> {
    make_room(target)?;
    let mut file = File::options().write(true).create_new(true).open(target).map_err(at(target))?;
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = match entry.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ArchiveError::Stream(error)),
        };
        file.write_all(piece.get(..read).unwrap_or_default()).map_err(at(target))?;
    }
    let modified = entry.header().mtime().unwrap_or_default();
    if let Some(modified) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(modified)) {
        // A file system that keeps no such time is no reason to fail.
        let _ = file.set_modified(modified);
    }
    file.set_permissions(permissions(entry)).map_err(at(target))
}

fn link_name(entry: &Entry<'_, impl Read>, name: &Path) -> Result<PathBuf, ArchiveError> {
    match entry.link_name().map_err(ArchiveError::Stream)? {
        Some(to) => Ok(to.into_owned()),
        None => Err(refused(name, "it is a link to nothing")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(path: &Path, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack(path, Path::new(name), &mut bytes).unwrap();
        bytes
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir_all(root.join("sub/empty")).unwrap();
        fs::write(root.join("a"), "first").unwrap();
        fs::write(root.join("sub/run"), vec![7; 200_000]).unwrap();
        fs::set_permissions(root.join("sub/run"), Permissions::from_mode(0o4755)).unwrap();
        std::os::unix::fs::symlink("../a", root.join("sub/link")).unwrap();
        let long = "n".repeat(150);
        fs::create_dir_all(root.join(&long)).unwrap();
        fs::write(root.join(&long).join(&long), "deep").unwrap();
        dir
    }

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let dir = tree();
        let bytes = packed(&dir.path().join("tree"), "tree");
        for (top, below) in
            [(Top::Keep, "tree"), (Top::Rename("other".into()), "other"), (Top::Drop, "")]
        {
            let into = tempfile::tempdir().unwrap();
            unpack(&bytes[..], into.path(), &top).unwrap();
            // A second time over the first.
            unpack(&bytes[..], into.path(), &top).unwrap();
            let root = into.path().join(below);
            assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "first");
            assert_eq!(fs::read_to_string(root.join("sub/link")).unwrap(), "first");
            assert!(root.join("sub/link").is_symlink() && root.join("sub/empty").is_dir());
            let run = fs::metadata(root.join("sub/run")).unwrap();
            assert_eq!((run.len(), run.permissions().mode() & 0o7777), (200_000, 0o755));
            let (was, is) = (dir.path().join("tree/a"), root.join("a"));
            let seconds = |path| {
                let at = fs::metadata(path).unwrap().modified().unwrap();
                at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
            };
            assert_eq!(seconds(was), seconds(is));
            let long = "n".repeat(150);
            assert_eq!(fs::read_to_string(root.join(&long).join(&long)).unwrap(), "deep");
        }
    }

    #[test]
    fn a_file_may_be_renamed_and_what_is_there_is_replaced() {
        let dir = tree();
        let bytes = packed(&dir.path().join("tree/a"), "a");
        let outside = dir.path().join("outside");
        fs::write(&outside, "untouched").unwrap();
        let into = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&outside, into.path().join("b")).unwrap();
        unpack(&bytes[..], into.path(), &Top::Rename("b".into())).unwrap();
        assert!(!into.path().join("b").is_symlink());
        assert_eq!(fs::read_to_string(into.path().join("b")).unwrap(), "first");
        assert_eq!(fs::read_to_string(outside).unwrap(), "untouched");
        fs::create_dir(into.path().join("a")).unwrap();
        let error = unpack(&bytes[..], into.path(), &Top::Keep).unwrap_err().to_string();
        assert!(error.contains("directory"), "{error}");
        let mut bytes = Vec::new();
        let missing = pack(Path::new("/no/such"), Path::new("x"), &mut bytes).unwrap_err();
        assert_eq!(bytes, b"", "what failed must not look like an archive");
        assert!(missing.is_not_found() && missing.to_string().contains("/no/such"), "{missing}");
    }

    /// An entry with a name as an attacker writes it.
    fn entry(kind: EntryType, name: &str, link: &str, text: &str) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(bytes.len().div_ceil(512) * 512, 0);
        bytes
    }

    #[test]
    fn nothing_is_written_outside() {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("into");
        fs::create_dir(&into).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        let absolute = dir.path().join("absolute").display().to_string();
        let outside = dir.path().display().to_string();
        let attacks: Vec<Vec<u8>> = vec![
            entry(EntryType::Regular, "../evil", "", "x"),
            entry(EntryType::Regular, "a/../../evil", "", "x"),
            entry(EntryType::Regular, &absolute, "", "x"),
            [
                entry(EntryType::Symlink, "out", &outside, ""),
                entry(EntryType::Regular, "out/evil", "", "x"),
            ]
            .concat(),
            [
                entry(EntryType::Symlink, "out", "..", ""),
                entry(EntryType::Directory, "out/evil", "", ""),
            ]
            .concat(),
            entry(EntryType::Link, "copy", "../secret", ""),
            [
                entry(EntryType::Symlink, "s", "../secret", ""),
                entry(EntryType::Link, "copy", "s", ""),
            ]
            .concat(),
            [entry(EntryType::Symlink, "d", "..", ""), entry(EntryType::Directory, "d", "", "")]
                .concat(),
        ];
        for (number, attack) in attacks.iter().enumerate() {
            for top in [Top::Keep, Top::Rename("r".into())] {
                let _ = fs::remove_dir_all(&into);
                fs::create_dir(&into).unwrap();
                let outcome = unpack(&attack[..], &into, &top);
                if top == Top::Keep {
                    assert!(outcome.is_err(), "attack {number}");
                }
                let names: Vec<_> =
                    fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
                assert_eq!(names.len(), 2, "attack {number}: {names:?}");
                assert_eq!(fs::read_to_string(dir.path().join("secret")).unwrap(), "secret");
            }
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_is_an_error() {
        let dir = tree();
        let bytes = packed(&dir.path().join("tree"), "tree");
        let into = tempfile::tempdir().unwrap();
        let cut = unpack(&bytes[..bytes.len() / 2], into.path(), &Top::Keep).unwrap_err();
        assert!(matches!(cut, ArchiveError::Stream(_)), "{cut}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_place_is_always_below(name in "[a./]{0,12}") {
            for top in [Top::Keep, Top::Drop, Top::Rename("x".into())] {
                if let Ok(place) = top.place(Path::new(&name)) {
                    prop_assert!(place.components().all(|part| matches!(part, Component::Normal(_))));
                }
            }
        }
    }
}
