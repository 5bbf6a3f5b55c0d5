/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * "faulty": an SQLite file system layer over the default one that counts its operations, lets the k-th one fail (a write then leaves
 * half of its bytes), or calls a test at each moment at which a crash would leave something else on the disk: before every
 * operation, and half-way through every write. It can also keep what a power cut would leave: a copy of each file as of its
 * last sync. For tests of the store, included once.
 */
#ifndef FAULTVFS_H
#define FAULTVFS_H

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum faultvfs_kind {
	FAULTVFS_NONE,
	FAULTVFS_IOERR,
	FAULTVFS_FULL, /* for what can run out of space; the others give IOERR */
};

static struct {
	enum faultvfs_kind kind;
	bool from_then_on;       /* all operations from the k-th on fail */
	unsigned long at;        /* the k-th operation, from 1 */
	unsigned long count;     /* operations so far */
	unsigned long hits;      /* that went wrong */
	const char *durable_dir; /* NULL: keep nothing */
	void (*moment)(void);    /* NULL: nobody watches */
} faultvfs;

struct faultvfs_file {
	sqlite3_file base;
	char *name;
	sqlite3_file *real; /* behind this struct */
};

static void faultvfs_arm(enum faultvfs_kind kind, unsigned long at, bool from_then_on)
{
	faultvfs.kind = kind;
	faultvfs.at = at;
	faultvfs.from_then_on = from_then_on;
	faultvfs.count = faultvfs.hits = 0;
}

static bool faultvfs_due(void)
{
	if (faultvfs.moment)
		faultvfs.moment();
	faultvfs.count++;
	if (faultvfs.kind == FAULTVFS_NONE || faultvfs.count < faultvfs.at ||
	    (faultvfs.count > faultvfs.at && !faultvfs.from_then_on))
		return false;
	faultvfs.hits++;
	return true;
}

/* SQLITE_OK, or the error to return. */
static int faultvfs_op(int ioerr, bool takes_space)
{
	if (!faultvfs_due())
		return SQLITE_OK;
	errno = takes_space && faultvfs.kind == FAULTVFS_FULL ? ENOSPC : EIO;
	return takes_space && faultvfs.kind == FAULTVFS_FULL ? SQLITE_FULL : ioerr;
}

static void faultvfs_durable_name(const char *name, char *ret, size_t size)
{
	const char *slash = strrchr(name, '/');

	snprintf(ret, size, "%s/%s", faultvfs.durable_dir, slash ? slash + 1 : name);
}

static void faultvfs_copy(const char *from, const char *to)
{
	char buf[65536];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ssize_t n;

	while (in >= 0 && (n = read(in, buf, sizeof(buf))) > 0)
		if (write(out, buf, (size_t)n) != n)
			abort();
	if (in < 0 || out < 0)
		abort();
	close(in);
	close(out);
}

#define REAL(f) (((struct faultvfs_file *)(f))->real)

static int faultvfs_close(sqlite3_file *f)
{
	int rc = REAL(f)->pMethods->xClose(REAL(f));

	free(((struct faultvfs_file *)f)->name);
	return rc;
}

static int faultvfs_read(sqlite3_file *f, void *buf, int n, sqlite3_int64 at)
{
	int rc = faultvfs_op(SQLITE_IOERR_READ, false);

	return rc ? rc : REAL(f)->pMethods->xRead(REAL(f), buf, n, at);
}

static int faultvfs_write(sqlite3_file *f, const void *buf, int n, sqlite3_int64 at)
{
	if (faultvfs_due()) {
		REAL(f)->pMethods->xWrite(REAL(f), buf, n / 2, at);
		errno = faultvfs.kind == FAULTVFS_FULL ? ENOSPC : EIO;
		return faultvfs.kind == FAULTVFS_FULL ? SQLITE_FULL : SQLITE_IOERR_WRITE;
	}
	if (faultvfs.moment) {
		REAL(f)->pMethods->xWrite(REAL(f), buf, n / 2, at);
		faultvfs.moment();
	}
	return REAL(f)->pMethods->xWrite(REAL(f), buf, n, at);
}

static int faultvfs_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	int rc = faultvfs_op(SQLITE_IOERR_TRUNCATE, false);

	return rc ? rc : REAL(f)->pMethods->xTruncate(REAL(f), size);
}

static int faultvfs_sync(sqlite3_file *f, int flags)
{
	const char *name = ((struct faultvfs_file *)f)->name;
	char durable[512];
	int rc = faultvfs_op(SQLITE_IOERR_FSYNC, true);

	(void)flags;
	if (!rc && faultvfs.durable_dir && name) {
		faultvfs_durable_name(name, durable, sizeof(durable));
		faultvfs_copy(name, durable);
	}
	return rc;
}

static int faultvfs_size(sqlite3_file *f, sqlite3_int64 *ret)
{
	int rc = faultvfs_op(SQLITE_IOERR_FSTAT, false);

	return rc ? rc : REAL(f)->pMethods->xFileSize(REAL(f), ret);
}

static int faultvfs_lock(sqlite3_file *f, int level)
{
	int rc = faultvfs_op(SQLITE_IOERR_LOCK, false);

	return rc ? rc : REAL(f)->pMethods->xLock(REAL(f), level);
}

static int faultvfs_unlock(sqlite3_file *f, int level)
{
	return REAL(f)->pMethods->xUnlock(REAL(f), level);
}

static int faultvfs_reserved(sqlite3_file *f, int *ret)
{
	return REAL(f)->pMethods->xCheckReservedLock(REAL(f), ret);
}

static int faultvfs_control(sqlite3_file *f, int op, void *arg)
{
	return REAL(f)->pMethods->xFileControl(REAL(f), op, arg);
}

static int faultvfs_sector(sqlite3_file *f)
{
	return REAL(f)->pMethods->xSectorSize(REAL(f));
}

static int faultvfs_traits(sqlite3_file *f)
{
	return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f));
}

static int faultvfs_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **ret)
{
	int rc = faultvfs_op(SQLITE_IOERR_SHMMAP, true);

	return rc ? rc : REAL(f)->pMethods->xShmMap(REAL(f), page, size, extend, ret);
}

static int faultvfs_shm_lock(sqlite3_file *f, int first, int n, int flags)
{
	int rc = flags & SQLITE_SHM_UNLOCK ? SQLITE_OK : faultvfs_op(SQLITE_IOERR_SHMLOCK, false);

	return rc ? rc : REAL(f)->pMethods->xShmLock(REAL(f), first, n, flags);
}

static void faultvfs_shm_barrier(sqlite3_file *f)
{
	REAL(f)->pMethods->xShmBarrier(REAL(f));
}

static int faultvfs_shm_unmap(sqlite3_file *f, int delete)
{
	return REAL(f)->pMethods->xShmUnmap(REAL(f), delete);
}

static int faultvfs_fetch(sqlite3_file *f, sqlite3_int64 at, int n, void **ret)
{
	(void)f, (void)at, (void)n;
	*ret = NULL; /* no mapped reads: each is to be counted */
	return SQLITE_OK;
}

static int faultvfs_unfetch(sqlite3_file *f, sqlite3_int64 at, void *p)
{
	(void)f, (void)at, (void)p;
	return SQLITE_OK;
}

static const sqlite3_io_methods faultvfs_methods = {
	.iVersion = 3,
	.xClose = faultvfs_close,
	.xRead = faultvfs_read,
	.xWrite = faultvfs_write,
	.xTruncate = faultvfs_truncate,
	.xSync = faultvfs_sync,
	.xFileSize = faultvfs_size,
	.xLock = faultvfs_lock,
	.xUnlock = faultvfs_unlock,
	.xCheckReservedLock = faultvfs_reserved,
	.xFileControl = faultvfs_control,
	.xSectorSize = faultvfs_sector,
	.xDeviceCharacteristics = faultvfs_traits,
	.xShmMap = faultvfs_shm_map,
	.xShmLock = faultvfs_shm_lock,
	.xShmBarrier = faultvfs_shm_barrier,
	.xShmUnmap = faultvfs_shm_unmap,
	.xFetch = faultvfs_fetch,
	.xUnfetch = faultvfs_unfetch,
};

static int faultvfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *ret)
{
	sqlite3_vfs *below = vfs->pAppData;
	struct faultvfs_file *mine = (struct faultvfs_file *)f;
	int rc = faultvfs_op(SQLITE_CANTOPEN, false);

	memset(mine, 0, sizeof(*mine));
	if (rc)
		return rc;
	mine->real = (sqlite3_file *)(mine + 1);
	rc = below->xOpen(below, name, mine->real, flags, ret);
	if (mine->real->pMethods) {
		f->pMethods = &faultvfs_methods;
		mine->name = name ? strdup(name) : NULL;
	}
	return rc;
}

static int faultvfs_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
	sqlite3_vfs *below = vfs->pAppData;
	char durable[512];
	int rc = faultvfs_op(SQLITE_IOERR_DELETE, false);

	(void)sync_dir;
	if (rc)
		return rc;
	rc = below->xDelete(below, name, 0);
	if (!rc && faultvfs.durable_dir) {
		faultvfs_durable_name(name, durable, sizeof(durable));
		unlink(durable);
	}
	return rc;
}

static int faultvfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret)
{
	sqlite3_vfs *below = vfs->pAppData;
	int rc = faultvfs_op(SQLITE_IOERR_ACCESS, false);

	return rc ? rc : below->xAccess(below, name, flags, ret);
}

static void faultvfs_register(void)
{
	static sqlite3_vfs vfs;
	sqlite3_vfs *below = sqlite3_vfs_find(NULL);

	vfs = *below;
	vfs.zName = "faulty";
	vfs.pNext = NULL;
	vfs.pAppData = below;
	vfs.szOsFile = (int)sizeof(struct faultvfs_file) + below->szOsFile;
	vfs.xOpen = faultvfs_open;
	vfs.xDelete = faultvfs_delete;
	vfs.xAccess = faultvfs_access;
	if (sqlite3_vfs_register(&vfs, 0) != SQLITE_OK)
		abort();
}

#endif
