package store

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// memFS is a file system in memory that can fail and that forgets. It keeps a
// log of every change, and for each whether an fsync has made it last; a power
// cut keeps those and any choice of the others (see cut). That is crueller
// than a journalling file system, which keeps an order.
//
// What it takes for granted: a rename is one change; the fsync of a
// directory makes what was put into or taken out of it last, and that of a
// file its bytes and its mode, not its name.
type memFS struct {
	nodes map[int]*memNode // what the running kernel sees
	base  map[int]*memNode // what the disk held at the start
	log   []*memOp
	next  int

	calls int // changing calls so far: the places where a fault can be put
	fault func(call int, op string) error
	full  bool // no block and no inode is free
	spare int  // blocks and inodes that were freed since
}

type memNode struct {
	mode    fs.FileMode
	data    []byte
	target  string
	entries map[string]int
	mtime   time.Time
}

type memOp struct {
	on      []int // the inodes whose fsync makes it last
	durable bool
	doomed  bool // its fsync failed: no later one makes it last
	torn    func(map[int]*memNode)
	apply   func(map[int]*memNode)
}

var errCut = errors.New("power cut")

const memRoot = 1

func newMemFS() *memFS {
	m := &memFS{nodes: map[int]*memNode{}, next: memRoot + 1}
	m.nodes[memRoot] = &memNode{mode: fs.ModeDir | 0o755, entries: map[string]int{}}
	m.settle()
	return m
}

// settle makes everything last, as time does.
func (m *memFS) settle() {
	m.base, m.log, m.calls = cloneNodes(m.nodes), nil, 0
}

func cloneNodes(nodes map[int]*memNode) map[int]*memNode {
	c := make(map[int]*memNode, len(nodes))
	for id, n := range nodes {
		k := *n
		if n.entries != nil {
			k.entries = make(map[string]int, len(n.entries))
			for name, to := range n.entries {
				k.entries[name] = to
			}
		}
		c[id] = &k
	}
	return c
}

// reboot is the file system after the kernel was asked for everything it
// has: the process died, the machine did not.
func (m *memFS) reboot() *memFS {
	r := &memFS{nodes: cloneNodes(m.nodes), base: m.base, next: m.next, full: m.full, spare: m.spare}
	for _, op := range m.log {
		c := *op
		r.log = append(r.log, &c)
	}
	return r
}

// cut is the file system after a power cut. Of the changes no fsync covers,
// keep decides: 0 drops, 1 keeps, 2 keeps a torn part.
func (m *memFS) cut(keep func(i int) int) *memFS {
	nodes := cloneNodes(m.base)
	i := 0
	for _, op := range m.log {
		choice := 1
		if !op.durable {
			choice = keep(i)
			i++
		}
		switch {
		case choice == 1:
			op.apply(nodes)
		case choice == 2 && op.torn != nil:
			op.torn(nodes)
		}
	}
	r := &memFS{nodes: nodes, next: m.next}
	r.settle()
	return r
}

// pending counts the changes that a power cut may take.
func (m *memFS) pending() int {
	n := 0
	for _, op := range m.log {
		if !op.durable {
			n++
		}
	}
	return n
}

// cuts are the power cuts worth trying: everything kept, nothing kept, each
// change the only one kept or lost, everything torn, each prefix, and some
// at random.
func (m *memFS) cuts(rng *rand.Rand, random int) []func(int) int {
	n := m.pending()
	list := []func(int) int{
		func(int) int { return 0 }, func(int) int { return 1 }, func(int) int { return 2 },
	}
	for k := range n {
		list = append(list,
			func(i int) int { return b2i(i == k) },
			func(i int) int { return b2i(i != k) },
			func(i int) int { return b2i(i < k) })
	}
	for range random {
		choice := make([]int, n)
		for i := range choice {
			choice[i] = rng.IntN(3)
		}
		list = append(list, func(i int) int { return choice[i] })
	}
	return list
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// call is a change about to be made; an error keeps it from being made.
func (m *memFS) call(op, name string) error {
	m.calls++
	if m.fault != nil {
		if err := m.fault(m.calls, op); err != nil {
			return &fs.PathError{Op: op, Path: name, Err: err}
		}
	}
	return nil
}

// do makes a change now, and remembers it.
func (m *memFS) do(op *memOp) {
	op.apply(m.nodes)
	m.log = append(m.log, op)
}

// take is the price of something new on the disk.
func (m *memFS) take(units int) error {
	if !m.full || units == 0 {
		return nil
	}
	if m.spare < units {
		return syscall.ENOSPC
	}
	m.spare -= units
	return nil
}

// lookup finds a name; every component but the last has to be a directory.
func (m *memFS) lookup(name string) (dir, id int, base string, err error) {
	if !filepath.IsAbs(name) || name != filepath.Clean(name) {
		return 0, 0, "", &fs.PathError{Op: "lookup", Path: name, Err: syscall.EINVAL}
	}
	id = memRoot
	parts := strings.Split(strings.TrimPrefix(name, "/"), "/")
	for i, part := range parts {
		if part == "" {
			break
		}
		d := m.nodes[id]
		if d.entries == nil {
			return 0, 0, "", &fs.PathError{Op: "lookup", Path: name, Err: syscall.ENOTDIR}
		}
		dir, base, id = id, part, d.entries[part]
		if id == 0 && i < len(parts)-1 {
			return 0, 0, "", &fs.PathError{Op: "lookup", Path: name, Err: syscall.ENOENT}
		}
	}
	return dir, id, base, nil
}

// find is lookup of something that is there.
func (m *memFS) find(name string) (*memNode, int, error) {
	_, id, _, err := m.lookup(name)
	if err != nil {
		return nil, 0, err
	}
	if id == 0 {
		return nil, 0, &fs.PathError{Op: "find", Path: name, Err: syscall.ENOENT}
	}
	return m.nodes[id], id, nil
}

type memInfo struct {
	name string
	n    *memNode
}

func (i memInfo) Name() string               { return i.name }
func (i memInfo) Size() int64                { return int64(len(i.n.data)) }
func (i memInfo) Mode() fs.FileMode          { return i.n.mode }
func (i memInfo) ModTime() time.Time         { return i.n.mtime }
func (i memInfo) IsDir() bool                { return i.n.mode.IsDir() }
func (i memInfo) Sys() any                   { return nil }
func (i memInfo) Type() fs.FileMode          { return i.n.mode.Type() }
func (i memInfo) Info() (fs.FileInfo, error) { return i, nil }

func (m *memFS) Lstat(name string) (fs.FileInfo, error) {
	n, _, err := m.find(name)
	if err != nil {
		return nil, err
	}
	return memInfo{filepath.Base(name), n}, nil
}

func (m *memFS) Readlink(name string) (string, error) {
	n, _, err := m.find(name)
	if err != nil {
		return "", err
	}
	return n.target, nil
}

func (m *memFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := m.call("readdir", name); err != nil {
		return nil, err
	}
	n, _, err := m.find(name)
	if err != nil {
		return nil, err
	}
	if n.entries == nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: syscall.ENOTDIR}
	}
	var list []fs.DirEntry
	for entry, id := range n.entries {
		list = append(list, memInfo{entry, m.nodes[id]})
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

type memFile struct {
	m      *memFS
	id     int
	name   string
	at     int
	closed bool
}

func (m *memFS) Open(name string) (file, error) {
	n, id, err := m.find(name)
	if err != nil {
		return nil, err
	}
	if n.mode&fs.ModeSymlink != 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
	}
	return &memFile{m: m, id: id, name: name}, nil
}

// make puts a new inode under a name that is free.
func (m *memFS) make(op, name string, n memNode) (int, error) {
	if err := m.call(op, name); err != nil {
		return 0, err
	}
	dir, id, base, err := m.lookup(name)
	if err != nil {
		return 0, err
	}
	if id != 0 {
		return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EEXIST}
	}
	if err := m.take(1); err != nil {
		return 0, &fs.PathError{Op: op, Path: name, Err: err}
	}
	id = m.next
	m.next++
	m.do(&memOp{on: []int{dir}, apply: func(nodes map[int]*memNode) {
		if nodes[id] == nil {
			k := n
			if n.mode.IsDir() {
				k.entries = map[string]int{}
			}
			nodes[id] = &k
		}
		if d := nodes[dir]; d != nil {
			d.entries[base] = id
		}
	}})
	// An inode may reach the disk before its name does: with its fsync.
	birth := *m.log[len(m.log)-1]
	birth.on = []int{id}
	birth.apply = func(nodes map[int]*memNode) {
		if nodes[id] == nil {
			k := n
			if n.mode.IsDir() {
				k.entries = map[string]int{}
			}
			nodes[id] = &k
		}
	}
	m.log = slices.Insert(m.log, len(m.log)-1, &birth)
	return id, nil
}

func (m *memFS) Create(name string, perm fs.FileMode) (file, error) {
	id, err := m.make("create", name, memNode{mode: perm &^ 0o077}) // umask
	if err != nil {
		return nil, err
	}
	return &memFile{m: m, id: id, name: name}, nil
}

func (m *memFS) Mkdir(name string, perm fs.FileMode) error {
	if _, id, _, err := m.lookup(name); err == nil && id != 0 {
		return &fs.PathError{Op: "mkdir", Path: name, Err: syscall.EEXIST}
	}
	_, err := m.make("mkdir", name, memNode{mode: fs.ModeDir | perm&^0o077})
	return err
}

func (m *memFS) Symlink(target, name string) error {
	_, err := m.make("symlink", name, memNode{mode: fs.ModeSymlink | 0o777, target: target})
	return err
}

func (m *memFS) Overwrite(name string) (file, error) {
	_, id, err := m.find(name)
	if err != nil {
		return nil, err
	}
	return &memFile{m: m, id: id, name: name}, nil
}

func (m *memFS) Chmod(name string, mode fs.FileMode) error {
	if err := m.call("chmod", name); err != nil {
		return err
	}
	_, id, err := m.find(name)
	if err != nil {
		return err
	}
	m.do(&memOp{on: []int{id}, apply: func(nodes map[int]*memNode) {
		if n := nodes[id]; n != nil {
			n.mode = n.mode.Type() | mode
		}
	}})
	return nil
}

func (m *memFS) Rename(from, to string) error {
	if err := m.call("rename", from); err != nil {
		return err
	}
	fdir, id, fbase, err := m.lookup(from)
	if err != nil {
		return err
	}
	if id == 0 {
		return &fs.PathError{Op: "rename", Path: from, Err: syscall.ENOENT}
	}
	tdir, over, tbase, err := m.lookup(to)
	if err != nil {
		return err
	}
	moved := m.nodes[id]
	if moved.mode.IsDir() && fdir != tdir && moved.mode&0o200 == 0 {
		return &fs.PathError{Op: "rename", Path: from, Err: syscall.EACCES} // its ".." would change
	}
	if over != 0 {
		if moved.mode.IsDir() != m.nodes[over].mode.IsDir() {
			return &fs.PathError{Op: "rename", Path: to, Err: syscall.EISDIR}
		}
		if len(m.nodes[over].entries) > 0 {
			return &fs.PathError{Op: "rename", Path: to, Err: syscall.ENOTEMPTY}
		}
		defer m.gone(over)
	}
	m.do(&memOp{on: []int{tdir}, apply: func(nodes map[int]*memNode) {
		if d := nodes[fdir]; d != nil && d.entries[fbase] == id {
			delete(d.entries, fbase)
		}
		if d := nodes[tdir]; d != nil && nodes[id] != nil {
			d.entries[tbase] = id
		}
	}})
	return nil
}

func (m *memFS) Exchange(a, b string) error {
	if err := m.call("exchange", a); err != nil {
		return err
	}
	adir, aid, abase, err := m.lookup(a)
	if err != nil {
		return err
	}
	bdir, bid, bbase, err := m.lookup(b)
	if err != nil {
		return err
	}
	if aid == 0 || bid == 0 {
		return &fs.PathError{Op: "exchange", Path: a, Err: syscall.ENOENT}
	}
	m.do(&memOp{on: []int{adir, bdir}, apply: func(nodes map[int]*memNode) {
		if nodes[adir] != nil && nodes[bdir] != nil && nodes[aid] != nil && nodes[bid] != nil {
			nodes[adir].entries[abase], nodes[bdir].entries[bbase] = bid, aid
		}
	}})
	return nil
}

func (m *memFS) Remove(name string) error {
	if err := m.call("remove", name); err != nil {
		return err
	}
	dir, id, base, err := m.lookup(name)
	if err != nil {
		return err
	}
	if id == 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOENT}
	}
	if m.nodes[dir].mode&0o200 == 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.EACCES}
	}
	if len(m.nodes[id].entries) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	m.do(&memOp{on: []int{dir}, apply: func(nodes map[int]*memNode) {
		if d := nodes[dir]; d != nil && d.entries[base] == id {
			delete(d.entries, base)
		}
	}})
	m.gone(id)
	return nil
}

// gone gives back the room of an inode that has no name any more.
func (m *memFS) gone(id int) {
	for _, n := range m.nodes {
		for _, to := range n.entries {
			if to == id {
				return
			}
		}
	}
	m.spare += 1 + (len(m.nodes[id].data)+4095)/4096
}

func (m *memFS) Space(string) (bytes, files int64, err error) {
	if err := m.call("statfs", "/"); err != nil {
		return 0, 0, err
	}
	if m.full {
		return int64(m.spare) * 4096, int64(m.spare), nil
	}
	return 1 << 40, -1, nil
}

func (f *memFile) Read(p []byte) (int, error) {
	if err := f.m.call("read", f.name); err != nil {
		return 0, err
	}
	data := f.m.nodes[f.id].data
	if f.at >= len(data) {
		return 0, io.EOF
	}
	n := copy(p, data[f.at:])
	f.at += n
	return n, nil
}

// Write tears when it fails: half of what it was given gets through.
func (f *memFile) Write(p []byte) (int, error) {
	err := f.m.call("write", f.name)
	if err != nil {
		p = p[:len(p)/2]
	}
	have := len(f.m.nodes[f.id].data)
	if room := f.m.take((max(have, f.at+len(p))+4095)/4096 - (have+4095)/4096); room != nil {
		return 0, &fs.PathError{Op: "write", Path: f.name, Err: room}
	}
	f.m.do(&memOp{on: []int{f.id}, apply: memWrite(f.id, f.at, p), torn: memWrite(f.id, f.at, p[:len(p)/2])})
	f.at += len(p)
	return len(p), err
}

func memWrite(id, at int, p []byte) func(map[int]*memNode) {
	p = slices.Clone(p)
	return func(nodes map[int]*memNode) {
		n := nodes[id]
		if n == nil {
			return
		}
		// A new slice: copies of the tree share the old one.
		data := make([]byte, max(len(n.data), at+len(p)))
		copy(data, n.data)
		copy(data[at:], p)
		n.data = data
	}
}

// Sync makes what was done to this inode last. When it fails, the kernel
// forgets that there was anything to do: no later Sync makes up for it.
func (f *memFile) Sync() error {
	err := f.m.call("fsync", f.name)
	if errors.Is(err, errCut) {
		return err // it was never asked
	}
	for _, op := range f.m.log {
		if !slices.Contains(op.on, f.id) || op.durable || op.doomed {
			continue
		}
		if err != nil {
			op.doomed = true
		} else {
			op.durable = true
		}
	}
	return err
}

func (f *memFile) Close() error {
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	return nil
}

// The model is only worth something if it forgets what it should.
func TestMemFSForgets(t *testing.T) {
	m := newMemFS()
	if err := m.Mkdir("/d", 0o755); err != nil {
		t.Fatal(err)
	}
	m.settle()
	f, err := m.Create("/d/f", 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	lose := func(int) int { return 0 }
	content := func(m *memFS) string {
		n, _, err := m.find("/d/f")
		if err != nil {
			return "absent"
		}
		return string(n.data)
	}
	if got := content(m.cut(lose)); got != "absent" {
		t.Errorf("without fsync: got %q, want absent", got)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := content(m.cut(lose)); got != "absent" {
		t.Errorf("after the file's fsync, without the directory's: got %q, want absent", got)
	}
	d, _ := m.Open("/d")
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := content(m.cut(lose)); got != "hello" {
		t.Errorf("after both: got %q, want hello", got)
	}
	m.fault = func(int, string) error { return nil }
	if _, err := f.Write([]byte(" again")); err != nil {
		t.Fatal(err)
	}
	m.fault = func(_ int, op string) error {
		if op == "fsync" {
			return syscall.EIO
		}
		return nil
	}
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v, want EIO", err)
	}
	m.fault = nil
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := content(m.cut(lose)); got != "hello" {
		t.Errorf("after a failed fsync and one that lied: got %q, want hello", got)
	}
}
