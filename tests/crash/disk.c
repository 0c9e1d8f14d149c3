// A disk that can lose power, for LD_PRELOAD: every change of a file in a folder is recorded with what was there before, and
// every sync. From the records, the test works out what a disk may hold after a power failure (power.rs). Some calls fail, as
// those of a full or broken disk do.
//
// HOOKMILL_DISK_FOLDER  the folder
// HOOKMILL_DISK_LOG     the file for the records
// HOOKMILL_DISK_FAILS   of so many calls that write, rename, remove or sync, one fails; 0: none
// HOOKMILL_DISK_LIES    1: syncs succeed and do nothing
// HOOKMILL_DISK_SEED    decides which calls fail
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES 65536
#define SECTOR 512

static char folder[PATH_MAX];
static size_t folder_length;
static int log_fd = -1;
static unsigned long fails;
static int lies;
static uint64_t seed;
static char *paths[FILES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_mkdir)(const char *, mode_t);

__attribute__((constructor)) static void begin(void) {
    real_open = dlsym(RTLD_NEXT, "open64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_mkdir = dlsym(RTLD_NEXT, "mkdir");
    const char *value = getenv("HOOKMILL_DISK_FOLDER");
    const char *log = getenv("HOOKMILL_DISK_LOG");
    if (value == NULL || log == NULL || realpath(value, folder) == NULL) {
        return;
    }
    folder_length = strlen(folder);
    value = getenv("HOOKMILL_DISK_FAILS");
    fails = value == NULL ? 0 : strtoul(value, NULL, 10);
    value = getenv("HOOKMILL_DISK_LIES");
    lies = value != NULL && value[0] == '1';
    value = getenv("HOOKMILL_DISK_SEED");
    seed = value == NULL ? 1 : strtoull(value, NULL, 10) | 1;
    log_fd = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_inside(const char *path) {
    return log_fd >= 0 && strncmp(path, folder, folder_length) == 0 &&
           (path[folder_length] == '/' || path[folder_length] == 0);
}

static char *path_of(int fd) {
    return fd >= 0 && fd < FILES ? paths[fd] : NULL;
}

// Whether this call fails. The lock is held.
static int is_unlucky(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return fails != 0 && seed % fails == 0;
}

// A record: its kind, the path, three numbers, and bytes. The lock is held.
//
// W  a write: the range, the size of the file, and what the range held before
// S  a sync of a file or a folder; F  one that failed
// C  a file was created; M  a folder
// U  a file was removed, or another took its name: its size, and what it held
// R  a file got this name: the bytes are its former name
static void record(char kind, const char *path, int64_t at, int64_t count, int64_t size, const char *bytes,
                   uint64_t length) {
    uint32_t path_length = (uint32_t)strlen(path);
    size_t total = 1 + 4 + path_length + 8 + 8 + 8 + 8 + length;
    char *buffer = malloc(total), *next = buffer;
    *next++ = kind;
    memcpy(next, &path_length, 4), next += 4;
    memcpy(next, path, path_length), next += path_length;
    memcpy(next, &at, 8), next += 8;
    memcpy(next, &count, 8), next += 8;
    memcpy(next, &size, 8), next += 8;
    memcpy(next, &length, 8), next += 8;
    if (length > 0) {
        memcpy(next, bytes, length);
    }
    if (real_write(log_fd, buffer, total) != (ssize_t)total) {
        abort();
    }
    free(buffer);
}

static int64_t size_of(const char *path) {
    struct stat found;
    return stat(path, &found) == 0 ? (int64_t)found.st_size : -1;
}

// Records what a range of a file holds before it is changed. `fd`: the file, if it is open. A database must be: to close another
// descriptor of a file would end the locks of this process.
static void record_range(char kind, const char *path, int fd, off_t at, size_t count) {
    int64_t size = size_of(path);
    // A disk writes whole sectors.
    count = (count + (size_t)(at % SECTOR) + SECTOR - 1) / SECTOR * SECTOR;
    at -= at % SECTOR;
    size_t held = at < size ? (size_t)(size - at) : 0;
    held = held < count ? held : count;
    char *bytes = malloc(held + 1);
    int own = fd < 0 ? real_open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t read = real_pread(fd < 0 ? own : fd, bytes, held, at);
    if (own >= 0) {
        real_close(own);
    }
    record(kind, path, at, (int64_t)count, size, bytes, read > 0 ? (uint64_t)read : 0);
    free(bytes);
}

static int opened(const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX], parent[PATH_MAX];
    const char *name = strrchr(path, '/');
    int is_ours = 0;
    if (log_fd >= 0 && path[0] == '/' && name != NULL && (size_t)(name - path) < sizeof parent) {
        memcpy(parent, path, (size_t)(name - path)), parent[name - path] = 0;
        if (realpath(path, whole) != NULL) {
            is_ours = is_inside(whole);
        } else if (realpath(parent, whole) != NULL && strlen(whole) + strlen(name) < sizeof whole) {
            strcat(whole, name);
            is_ours = is_inside(whole);
        }
    }
    if (!is_ours) {
        return real_open(path, flags, mode);
    }
    pthread_mutex_lock(&lock);
    int is_new = size_of(whole) < 0;
    if (!is_new && (flags & O_TRUNC)) {
        record_range('W', whole, -1, 0, (size_t)size_of(whole));
    }
    int fd = real_open(path, flags, mode);
    if (fd >= 0 && fd < FILES) {
        if (is_new) {
            record('C', whole, 0, 0, 0, NULL, 0);
        }
        free(paths[fd]);
        paths[fd] = strdup(whole);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags)                                                                                                     \
    mode_t mode = 0;                                                                                                    \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                              \
        va_list rest;                                                                                                   \
        va_start(rest, flags);                                                                                          \
        mode = (mode_t)va_arg(rest, int);                                                                               \
        va_end(rest);                                                                                                   \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags)
    return opened(path, flags, mode);
}

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < FILES) {
        free(paths[fd]);
        paths[fd] = NULL;
    }
    pthread_mutex_unlock(&lock);
    return real_close(fd);
}

static ssize_t written(int fd, const void *bytes, size_t count, off_t at, int is_positioned) {
    char *path = path_of(fd);
    if (path == NULL) {
        return is_positioned ? real_pwrite(fd, bytes, count, at) : real_write(fd, bytes, count);
    }
    pthread_mutex_lock(&lock);
    if (!is_positioned) {
        at = lseek(fd, 0, SEEK_CUR);
    }
    record_range('W', path, fd, at, count);
    ssize_t result;
    if (is_unlucky()) {
        // A part may be there.
        size_t part = seed / 7 % (count + 1);
        real_pwrite(fd, bytes, part, at);
        errno = seed % 2 ? ENOSPC : EIO;
        result = -1;
    } else {
        result = is_positioned ? real_pwrite(fd, bytes, count, at) : real_write(fd, bytes, count);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    return written(fd, bytes, count, 0, 0);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    return written(fd, bytes, count, at, 1);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) {
    return written(fd, bytes, count, at, 1);
}

static int truncated(int fd, off_t size) {
    char *path = path_of(fd);
    if (path == NULL) {
        return real_ftruncate(fd, size);
    }
    pthread_mutex_lock(&lock);
    int64_t held = size_of(path);
    record_range('W', path, fd, size, held > size ? (size_t)(held - size) : 0);
    int result = is_unlucky() ? (errno = EIO, -1) : real_ftruncate(fd, size);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t size) {
    return truncated(fd, size);
}

int ftruncate64(int fd, off_t size) {
    return truncated(fd, size);
}

static int synced(int fd, int (*real)(int)) {
    char *path = path_of(fd);
    if (path == NULL) {
        return real(fd);
    }
    pthread_mutex_lock(&lock);
    int result = 0;
    if (is_unlucky()) {
        // The system drops what it could not write, and a later sync does not bring it back.
        record('F', path, 0, 0, 0, NULL, 0);
        errno = EIO;
        result = -1;
    } else if (!lies) {
        record('S', path, 0, 0, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) {
    return synced(fd, real_fsync);
}

int fdatasync(int fd) {
    return synced(fd, real_fdatasync);
}

int rename(const char *from, const char *to) {
    if (!is_inside(from) || !is_inside(to)) {
        return real_rename(from, to);
    }
    pthread_mutex_lock(&lock);
    int result = -1;
    if (is_unlucky()) {
        errno = EIO;
    } else {
        int64_t replaced = size_of(to);
        if (replaced >= 0) {
            record_range('U', to, -1, 0, (size_t)replaced);
        }
        result = real_rename(from, to);
        // The path is the new one, and the bytes are the old one.
        record('R', to, 0, 0, 0, from, strlen(from));
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    if (!is_inside(path)) {
        return real_unlink(path);
    }
    pthread_mutex_lock(&lock);
    int result = -1;
    if (is_unlucky()) {
        errno = EIO;
    } else {
        int64_t held = size_of(path);
        if (held >= 0) {
            record_range('U', path, -1, 0, (size_t)held);
        }
        result = real_unlink(path);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    if (!is_inside(path)) {
        return real_mkdir(path, mode);
    }
    pthread_mutex_lock(&lock);
    int result = real_mkdir(path, mode);
    if (result == 0) {
        record('M', path, 0, 0, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}
