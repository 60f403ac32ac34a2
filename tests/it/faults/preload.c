/* A disk that loses power, a slow disk, and a clock that is wrong: preloaded into a server.
 *
 * Below FAULTS_ROOT every change of a file is remembered until the file is synced, and every change
 * of a directory until the directory is. When the power is cut, what was not synced is undone, and
 * a random part of it done again, since a real disk may have written any of it:
 *   - of a file's changes each is lost, kept, or kept in some of its sectors, whatever becomes of
 *     the others;
 *   - of names (files made, renamed, removed) the first so many are kept, as a journal keeps them.
 * fsync and fdatasync make a file's changes durable, and with it the name it was made under; of a
 * directory: its names and whatever was done before in others. sync_file_range promises nothing.
 *
 * Nothing is really synced: the kernel keeps what a killed process has written.
 *
 * Words on the pipe FAULTS_CONTROL, a line each:
 *   lose SEED     cuts the power; the process is killed with it
 *   delay MICROS  so long every sync takes from now on
 *   clock SECONDS so far ahead of the machine's the time of day is from now on
 * FAULTS_DELAY and FAULTS_CLOCK say the same from the start. With FAULTS_LIES the disk says that it
 * has synced and has not. Only programs named FAULTS_PROGRAM are touched.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512
#define BUCKETS 1024

/* Something done to a file's content. */
struct change {
  off_t at;
  off_t size_before, size_after;
  size_t old_length, new_length; /* of the bytes from `at` on */
  char *old_bytes, *new_bytes;
};

struct file {
  dev_t device;
  ino_t inode;
  int fd; /* of our own, for reading and writing */
  struct change *changes;
  size_t count, room;
  struct file *next;
};

enum kind { MADE, MADE_DIRECTORY, RENAMED, REMOVED, REMOVED_DIRECTORY };

/* Something done to a name. */
struct naming {
  enum kind kind;
  char *from, *to;
  char *kept; /* another name of what was removed or replaced */
  char *directories[2];
  dev_t device;
  ino_t inode;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file *files[BUCKETS];
static struct naming *namings;
static size_t naming_count, naming_room, kept_count;
static char root[PATH_MAX / 2];
static size_t root_length;
static int active, lies;
static volatile long delay_micros, clock_seconds;
static uint64_t seed;

static uint64_t draw(uint64_t below) {
  seed += 0x9e3779b97f4a7c15;
  uint64_t z = seed;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return (z ^ (z >> 31)) % below;
}

static void die(const char *what) {
  dprintf(2, "preload: %s: %s\n", what, strerror(errno));
  syscall(SYS_kill, getpid(), SIGKILL);
}

static void *must(void *memory) {
  if (!memory) die("no memory");
  return memory;
}

static char *copy_of(const char *text) { return must(strdup(text)); }

/* --- names --- */

static int below_root(const char *path) {
  return strncmp(path, root, root_length) == 0 &&
         (path[root_length] == '/' || path[root_length] == 0);
}

/* The path that a call means, if it is below the root. */
static int path_of(int directory, const char *path, char *out) {
  if (path[0] == '/') {
    if (snprintf(out, PATH_MAX, "%s", path) >= PATH_MAX) return 0;
    return below_root(out);
  }
  char link[64], base[PATH_MAX];
  if (directory == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
  else snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
  ssize_t length = readlink(link, base, sizeof base - 1);
  if (length < 0) return 0;
  base[length] = 0;
  if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
  return below_root(out);
}

static char *directory_of(const char *path) {
  char *directory = copy_of(path);
  char *slash = strrchr(directory, '/');
  if (slash) *slash = 0;
  return directory;
}

static void kept_path(char *out, size_t number) {
  snprintf(out, PATH_MAX, "%s.kept-%d-%zu", root, getpid(), number);
}

static struct naming *note_naming(enum kind kind, const char *from, const char *to, char *kept) {
  if (naming_count == naming_room) {
    naming_room = naming_room ? 2 * naming_room : 64;
    namings = must(realloc(namings, naming_room * sizeof *namings));
  }
  struct naming *naming = &namings[naming_count++];
  memset(naming, 0, sizeof *naming);
  naming->kind = kind;
  naming->from = copy_of(from);
  naming->directories[0] = directory_of(from);
  if (to) {
    naming->to = copy_of(to);
    naming->directories[1] = directory_of(to);
  }
  naming->kept = kept;
  struct stat stat;
  if (lstat(to ? to : from, &stat) == 0) {
    naming->device = stat.st_dev;
    naming->inode = stat.st_ino;
  }
  return naming;
}

static void forget_file(const struct stat *stat);

static void forget_naming(struct naming *naming) {
  struct stat stat;
  if (naming->kept) {
    int is_last = lstat(naming->kept, &stat) == 0 && stat.st_nlink == 1;
    syscall(SYS_unlink, naming->kept);
    if (is_last) forget_file(&stat);
  }
  free(naming->kept);
  free(naming->from);
  free(naming->to);
  free(naming->directories[0]);
  free(naming->directories[1]);
}

/* The first `count` are durable. */
static void settle_namings(size_t count) {
  for (size_t i = 0; i < count; i++) forget_naming(&namings[i]);
  naming_count -= count;
  memmove(namings, namings + count, naming_count * sizeof *namings);
}

static void undo_naming(struct naming *naming) {
  switch (naming->kind) {
    case MADE: syscall(SYS_unlink, naming->from); break;
    case MADE_DIRECTORY: syscall(SYS_rmdir, naming->from); break;
    case RENAMED:
      syscall(SYS_rename, naming->to, naming->from);
      if (naming->kept) syscall(SYS_rename, naming->kept, naming->to);
      break;
    case REMOVED:
      if (naming->kept) syscall(SYS_rename, naming->kept, naming->from);
      break;
    case REMOVED_DIRECTORY: syscall(SYS_mkdir, naming->from, 0755); break;
  }
}

/* Another name for what is about to lose this one; none if there is nothing. */
static char *keep(const char *path) {
  char name[PATH_MAX];
  kept_path(name, kept_count++);
  if (syscall(SYS_link, path, name) != 0) return NULL;
  return copy_of(name);
}

/* --- contents --- */

static struct file *file_of_inode(dev_t device, ino_t inode) {
  struct file *file = files[inode % BUCKETS];
  while (file && (file->device != device || file->inode != inode)) file = file->next;
  return file;
}

/* The file behind a descriptor, if it is a regular one below the root. */
static struct file *file_of(int fd, struct stat *stat) {
  if (syscall(SYS_fstat, fd, stat) != 0 || !S_ISREG(stat->st_mode)) return NULL;
  struct file *file = file_of_inode(stat->st_dev, stat->st_ino);
  if (file) return file;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return NULL;
  path[length] = 0;
  if (!below_root(path)) return NULL;
  int own = syscall(SYS_openat, AT_FDCWD, link, O_RDWR | O_CLOEXEC, 0);
  if (own < 0) die("a file can't be opened a second time");
  file = must(calloc(1, sizeof *file));
  file->device = stat->st_dev;
  file->inode = stat->st_ino;
  file->fd = own;
  file->next = files[stat->st_ino % BUCKETS];
  files[stat->st_ino % BUCKETS] = file;
  return file;
}

static char *bytes_at(struct file *file, off_t at, size_t length, size_t *got) {
  char *bytes = must(malloc(length ? length : 1));
  *got = 0;
  while (*got < length) {
    ssize_t n = syscall(SYS_pread64, file->fd, bytes + *got, length - *got, at + *got);
    if (n <= 0) break;
    *got += n;
  }
  return bytes;
}

static struct change *new_change(struct file *file) {
  if (file->count == file->room) {
    file->room = file->room ? 2 * file->room : 16;
    file->changes = must(realloc(file->changes, file->room * sizeof *file->changes));
  }
  struct change *change = &file->changes[file->count++];
  memset(change, 0, sizeof *change);
  return change;
}

static void settle_changes(struct file *file, size_t count) {
  for (size_t i = 0; i < count; i++) {
    free(file->changes[i].old_bytes);
    free(file->changes[i].new_bytes);
  }
  file->count -= count;
  memmove(file->changes, file->changes + count, file->count * sizeof *file->changes);
}

/* Nobody can name it any more. */
static void forget_file(const struct stat *stat) {
  struct file **link = &files[stat->st_ino % BUCKETS];
  while (*link && ((*link)->device != stat->st_dev || (*link)->inode != stat->st_ino))
    link = &(*link)->next;
  struct file *file = *link;
  if (!file) return;
  *link = file->next;
  settle_changes(file, file->count);
  free(file->changes);
  close(file->fd);
  free(file);
}

static void put(struct file *file, const char *bytes, size_t length, off_t at) {
  while (length > 0) {
    ssize_t n = syscall(SYS_pwrite64, file->fd, bytes, length, at);
    if (n <= 0) die("the past can't be restored");
    bytes += n;
    at += n;
    length -= n;
  }
}

static void undo_change(struct file *file, struct change *change) {
  put(file, change->old_bytes, change->old_length, change->at);
  syscall(SYS_ftruncate, file->fd, change->size_before);
}

static void redo_in_part(struct file *file, struct change *change) {
  uint64_t fate = draw(3);
  if (fate == 0) return;
  if (change->size_after < change->size_before) {
    syscall(SYS_ftruncate, file->fd, change->size_after);
    return;
  }
  for (size_t done = 0; done < change->new_length;) {
    size_t piece = SECTOR - (change->at + done) % SECTOR;
    if (piece > change->new_length - done) piece = change->new_length - done;
    if (fate == 1 || draw(2)) put(file, change->new_bytes + done, piece, change->at + done);
    done += piece;
  }
}

static void lose_power(uint64_t with) {
  pthread_mutex_lock(&lock); /* for good */
  seed = with;
  size_t lost = 0, names = naming_count;
  for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
    for (struct file *file = files[bucket]; file; file = file->next) {
      lost += file->count;
      for (size_t i = file->count; i > 0; i--) undo_change(file, &file->changes[i - 1]);
      for (size_t i = 0; i < file->count; i++) redo_in_part(file, &file->changes[i]);
    }
  }
  size_t kept = draw(naming_count + 1);
  while (naming_count > kept) undo_naming(&namings[--naming_count]);
  settle_namings(naming_count);
  dprintf(2, "preload: the power is cut: %zu changes of files and %zu of names were not synced\n",
          lost, names);
  syscall(SYS_kill, getpid(), SIGKILL);
}

/* --- what is told from outside --- */

static void *listen_to(void *path) {
  int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
  FILE *pipe = fd < 0 ? NULL : fdopen(fd, "r");
  if (!pipe) die("FAULTS_CONTROL can't be opened");
  char line[128];
  while (fgets(line, sizeof line, pipe)) {
    unsigned long long number;
    long value;
    if (sscanf(line, "lose %llu", &number) == 1) lose_power(number);
    else if (sscanf(line, "delay %ld", &value) == 1) delay_micros = value;
    else if (sscanf(line, "clock %ld", &value) == 1) clock_seconds = value;
    else dprintf(2, "preload: not understood: %s", line);
  }
  return NULL;
}

__attribute__((constructor)) static void begin(void) {
  const char *program = getenv("FAULTS_PROGRAM"), *below = getenv("FAULTS_ROOT");
  const char *control = getenv("FAULTS_CONTROL"), *number;
  if (!program || strcmp(program, program_invocation_short_name) != 0) return;
  if ((number = getenv("FAULTS_DELAY"))) delay_micros = atol(number);
  if ((number = getenv("FAULTS_CLOCK"))) clock_seconds = atol(number);
  lies = getenv("FAULTS_LIES") != NULL;
  if (below && strlen(below) < sizeof root) {
    strcpy(root, below);
    root_length = strlen(root);
    active = 1;
  }
  pthread_t thread;
  if (control && pthread_create(&thread, NULL, listen_to, copy_of(control)) != 0) die("no thread");
}

/* --- the calls --- */

/* A write of all of `parts` at `at`, or where the descriptor stands. */
static ssize_t write_to(int fd, const struct iovec *parts, int count, off_t at) {
  struct stat stat;
  struct file *file = NULL;
  if (active) {
    pthread_mutex_lock(&lock);
    file = file_of(fd, &stat);
    if (!file) pthread_mutex_unlock(&lock);
  }
  if (!file) {
    if (at < 0) return syscall(SYS_writev, fd, parts, count);
    return syscall(SYS_pwritev, fd, parts, count, (long)at, 0L);
  }
  off_t where = at;
  if (at < 0) {
    int flags = syscall(SYS_fcntl, fd, F_GETFL);
    where = flags & O_APPEND ? stat.st_size : syscall(SYS_lseek, fd, 0, SEEK_CUR);
  }
  size_t length = 0, old_length = 0;
  for (int i = 0; i < count; i++) length += parts[i].iov_len;
  char *old = bytes_at(file, where, length, &old_length);
  ssize_t written = at < 0 ? syscall(SYS_writev, fd, parts, count)
                           : syscall(SYS_pwritev, fd, parts, count, (long)at, 0L);
  int error = errno;
  if (written > 0) {
    struct change *change = new_change(file);
    change->at = where;
    change->size_before = stat.st_size;
    change->size_after = where + written > stat.st_size ? where + written : stat.st_size;
    change->old_bytes = old;
    change->old_length = old_length < (size_t)written ? old_length : (size_t)written;
    change->new_bytes = must(malloc(written));
    for (int i = 0; i < count && change->new_length < (size_t)written; i++) {
      size_t piece = parts[i].iov_len, left = written - change->new_length;
      if (piece > left) piece = left;
      memcpy(change->new_bytes + change->new_length, parts[i].iov_base, piece);
      change->new_length += piece;
    }
  } else {
    free(old);
  }
  pthread_mutex_unlock(&lock);
  errno = error;
  return written;
}

ssize_t write(int fd, const void *bytes, size_t length) {
  if (!active) return syscall(SYS_write, fd, bytes, length);
  struct iovec part = {(void *)bytes, length};
  return write_to(fd, &part, 1, -1);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  return write_to(fd, parts, count, -1);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
  struct iovec part = {(void *)bytes, length};
  return write_to(fd, &part, 1, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
  return pwrite64(fd, bytes, length, at);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
  return write_to(fd, parts, count, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
  return write_to(fd, parts, count, at);
}

int ftruncate64(int fd, off64_t size) {
  struct stat stat;
  struct file *file = NULL;
  if (active) {
    pthread_mutex_lock(&lock);
    file = file_of(fd, &stat);
    if (!file) pthread_mutex_unlock(&lock);
  }
  if (!file) return syscall(SYS_ftruncate, fd, size);
  size_t length = size < stat.st_size ? stat.st_size - size : 0, old_length;
  char *old = bytes_at(file, size, length, &old_length);
  int done = syscall(SYS_ftruncate, fd, size), error = errno;
  if (done == 0) {
    struct change *change = new_change(file);
    change->at = size;
    change->size_before = stat.st_size;
    change->size_after = size;
    change->old_bytes = old;
    change->old_length = old_length;
  } else {
    free(old);
  }
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

/* What would go past the memory of changes is refused: callers fall back to plain writes. */
static int refuse(int fd) {
  struct stat stat;
  if (!active) return 0;
  pthread_mutex_lock(&lock);
  struct file *file = file_of(fd, &stat);
  pthread_mutex_unlock(&lock);
  if (file) errno = EOPNOTSUPP;
  return file != NULL;
}

int fallocate64(int fd, int mode, off64_t at, off64_t length) {
  return refuse(fd) ? -1 : syscall(SYS_fallocate, fd, mode, at, length);
}

int fallocate(int fd, int mode, off_t at, off_t length) {
  return fallocate64(fd, mode, at, length);
}

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t length,
                        unsigned flags) {
  if (refuse(to)) return -1;
  return syscall(SYS_copy_file_range, from, from_at, to, to_at, length, flags);
}

static void wait_for_disk(void) {
  long micros = delay_micros;
  if (micros > 0) {
    struct timespec time = {micros / 1000000, micros % 1000000 * 1000};
    nanosleep(&time, NULL);
  }
}

static void directory_synced(const char *path) {
  for (size_t i = naming_count; i > 0; i--) {
    struct naming *naming = &namings[i - 1];
    for (int side = 0; side < 2; side++) {
      if (naming->directories[side] && strcmp(naming->directories[side], path) == 0) {
        settle_namings(i);
        return;
      }
    }
  }
}

static int sync_file(int fd) {
  if (!active) {
    wait_for_disk();
    return syscall(SYS_fsync, fd);
  }
  struct stat stat;
  if (syscall(SYS_fstat, fd, &stat) != 0) return -1;
  /* What was written before is made durable; what comes meanwhile need not be. */
  pthread_mutex_lock(&lock);
  struct file *file = file_of(fd, &stat);
  size_t count = file ? file->count : 0;
  pthread_mutex_unlock(&lock);
  wait_for_disk();
  if (lies) return 0;
  pthread_mutex_lock(&lock);
  file = file_of_inode(stat.st_dev, stat.st_ino);
  if (file) {
    /* Two at once: the other may have made some of them durable. */
    settle_changes(file, count < file->count ? count : file->count);
    for (size_t i = naming_count; i > 0; i--) {
      struct naming *naming = &namings[i - 1];
      if (naming->kind == MADE && naming->device == stat.st_dev && naming->inode == stat.st_ino) {
        settle_namings(i);
        break;
      }
    }
  } else if (S_ISDIR(stat.st_mode)) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
      path[length] = 0;
      directory_synced(path);
    }
  }
  pthread_mutex_unlock(&lock);
  return 0;
}

int fsync(int fd) { return sync_file(fd); }
int fdatasync(int fd) { return sync_file(fd); }

int sync_file_range(int fd, off64_t at, off64_t length, unsigned flags) {
  wait_for_disk();
  return active ? 0 : syscall(SYS_sync_file_range, fd, at, length, flags);
}

static int open_at(int directory, const char *path, int flags, mode_t mode) {
  char whole[PATH_MAX];
  struct stat stat;
  if (!active || !(flags & (O_CREAT | O_TRUNC)) || !path_of(directory, path, whole))
    return syscall(SYS_openat, directory, path, flags, mode);
  pthread_mutex_lock(&lock);
  int is_new = lstat(whole, &stat) != 0;
  /* Cut to nothing by a call that can be undone. */
  int cut = flags & O_TRUNC && !is_new;
  int fd = syscall(SYS_openat, directory, path, cut ? flags & ~O_TRUNC : flags, mode);
  int error = errno;
  if (fd >= 0 && is_new) note_naming(MADE, whole, NULL, NULL);
  pthread_mutex_unlock(&lock);
  if (fd >= 0 && cut && ftruncate64(fd, 0) != 0) die("a file can't be cut");
  errno = error;
  return fd;
}

#define MODE_OF(flags)                                     \
  mode_t mode = 0;                                         \
  if ((flags) & (O_CREAT | __O_TMPFILE)) {                 \
    va_list more;                                          \
    va_start(more, flags);                                 \
    mode = va_arg(more, mode_t);                           \
    va_end(more);                                          \
  }

int open(const char *path, int flags, ...) {
  MODE_OF(flags)
  return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  MODE_OF(flags)
  return open_at(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int directory, const char *path, int flags, ...) {
  MODE_OF(flags)
  return open_at(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...) {
  MODE_OF(flags)
  return open_at(directory, path, flags | O_LARGEFILE, mode);
}

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
  char old[PATH_MAX], new[PATH_MAX];
  if (!active || !path_of(from_directory, from, old) || !path_of(to_directory, to, new))
    return syscall(SYS_renameat2, from_directory, from, to_directory, to, 0);
  pthread_mutex_lock(&lock);
  char *kept = keep(new);
  int done = syscall(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, new, 0), error = errno;
  if (done == 0) {
    note_naming(RENAMED, old, new, kept);
  } else if (kept) {
    syscall(SYS_unlink, kept);
    free(kept);
  }
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int unlinkat(int directory, const char *path, int flags) {
  char whole[PATH_MAX];
  if (!active || !path_of(directory, path, whole))
    return syscall(SYS_unlinkat, directory, path, flags);
  pthread_mutex_lock(&lock);
  int is_directory = flags & AT_REMOVEDIR;
  char *kept = is_directory ? NULL : keep(whole);
  int done = syscall(SYS_unlinkat, AT_FDCWD, whole, flags), error = errno;
  if (done == 0) {
    note_naming(is_directory ? REMOVED_DIRECTORY : REMOVED, whole, NULL, kept);
  } else if (kept) {
    syscall(SYS_unlink, kept);
    free(kept);
  }
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int directory, const char *path, mode_t mode) {
  char whole[PATH_MAX];
  if (!active || !path_of(directory, path, whole))
    return syscall(SYS_mkdirat, directory, path, mode);
  pthread_mutex_lock(&lock);
  int done = syscall(SYS_mkdirat, AT_FDCWD, whole, mode), error = errno;
  if (done == 0) note_naming(MADE_DIRECTORY, whole, NULL, NULL);
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int clock_gettime(clockid_t which, struct timespec *time) {
  int done = syscall(SYS_clock_gettime, which, time);
  if (done == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
    time->tv_sec += clock_seconds;
  return done;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  int done = syscall(SYS_gettimeofday, time, zone);
  if (done == 0) time->tv_sec += clock_seconds;
  return done;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
