//! A directory of files that are written once and then renamed into place: the file system in
//! life, a simulated one in simulation.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// See the module.
pub trait Directory: Send + Sync + Debug + 'static {
    /// A new file, in the place of an old one.
    ///
    /// # Errors
    /// When the file system does.
    fn create(&self, name: &str) -> io::Result<Box<dyn DurableWrite>>;
    /// An existing file.
    ///
    /// # Errors
    /// When the file system does.
    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;
    /// Gives a file another name; durable once it returns.
    ///
    /// # Errors
    /// When the file system does.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file, sooner or later for good.
    ///
    /// # Errors
    /// When the file system does.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// All names.
    ///
    /// # Errors
    /// When the file system does.
    fn list(&self) -> io::Result<Vec<String>>;
    /// What a person calls the file.
    fn describe(&self, name: &str) -> String;
}

/// A file that is being written.
pub trait DurableWrite: Write + Send {
    /// Makes what was written durable.
    ///
    /// # Errors
    /// When the file system does.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Debug)]
pub struct OsDirectory {
    path: PathBuf,
}

impl OsDirectory {
    /// Makes the directory if it is not there.
    ///
    /// # Errors
    /// When the file system does.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            std::fs::create_dir_all(path)?;
            if let Some(parent) = path.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { path: path.to_owned() })
    }
}

impl Directory for OsDirectory {
    fn create(&self, name: &str) -> io::Result<Box<dyn DurableWrite>> {
        let file = File::create(self.path.join(name))?;
        Ok(Box::new(OsFile(BufWriter::with_capacity(256 << 10, file))))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let file = File::open(self.path.join(name))?;
        Ok(Box::new(BufReader::with_capacity(256 << 10, file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        File::open(&self.path)?.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for file in std::fs::read_dir(&self.path)? {
            if let Ok(name) = file?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn describe(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

struct OsFile(BufWriter<File>);

impl Write for OsFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl DurableWrite for OsFile {
    fn sync(&mut self) -> io::Result<()> {
        self.0.flush()?;
        self.0.get_ref().sync_all()
    }
}
