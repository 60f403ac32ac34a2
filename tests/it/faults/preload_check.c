/* Does to files what servers do, has the power cut in the middle, and leaves what there is to see.
 * Run with preload.c preloaded; the first argument is the directory, the second the control pipe,
 * the third what is told there. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int file(const char *name) {
  int fd = open(name, O_RDWR | O_CREAT, 0644);
  if (fd < 0) _exit(2);
  return fd;
}

static void fill(int fd, char with, off_t at) {
  char bytes[4096];
  memset(bytes, with, sizeof bytes);
  if (pwrite(fd, bytes, sizeof bytes, at) != sizeof bytes) _exit(3);
}

static void sync_directory(void) {
  int fd = open(".", O_RDONLY | O_DIRECTORY);
  if (fsync(fd) != 0) _exit(4);
  close(fd);
}

int main(int count, char **words) {
  if (count != 4 || chdir(words[1]) != 0) return 1;
  /* Synced, then written over without: the first 4096 bytes are durable, their new content is not. */
  int kept = file("kept");
  fill(kept, 'a', 0);
  if (fdatasync(kept) != 0) return 5;
  fill(kept, 'b', 0);
  fill(kept, 'b', 4096);
  /* A range that was pushed out is not synced. */
  int ranged = file("ranged");
  if (fsync(ranged) != 0) return 6;
  fill(ranged, 'c', 0);
  if (sync_file_range(ranged, 0, 0, SYNC_FILE_RANGE_WRITE) != 0) return 7;
  /* Renamed with its directory synced, and without. */
  int fd = file("renamed.new");
  fill(fd, 'd', 0);
  fsync(fd);
  rename("renamed.new", "renamed");
  sync_directory();
  fd = file("renamed.new");
  fill(fd, 'e', 0);
  fsync(fd);
  rename("renamed.new", "renamed");
  /* Removed without. */
  unlink("kept");
  /* Cut to nothing without. */
  if (ftruncate(ranged, 0) != 0) return 8;
  int control = open(words[2], O_WRONLY);
  dprintf(control, "%s\n", words[3]);
  for (;;) pause();
}
