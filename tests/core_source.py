"""Sources of an object with CO-RE relocations of every kind, and of kernels whose types differ from the object's."""

from __future__ import annotations

import subprocess
from pathlib import Path

LOCAL = """
#define CORE __attribute__((preserve_access_index))
#define INFO(what, kind) __builtin_preserve_field_info(what, kind)
#define TYPE(what, kind) __builtin_preserve_type_info(*(typeof(what) *)0, kind)
#define VALUE(what, name, kind) __builtin_preserve_enum_value(*(typeof(what) *)name, kind)
#define SEC(name) __attribute__((section(name), used))
char LICENSE[] SEC("license") = "GPL";
typedef unsigned int word;
typedef struct { int x; } nameless;
struct inner { int a; long b; int arr[4]; } CORE;
enum color { RED = 3, BLUE = 4 };
enum color___other { RED___other = 1, GREEN___x };
typedef int (*callback)(struct inner *, long);
struct outer {
	char pad;
	struct inner one;
	struct inner many[3];
	union { int u1; struct { short s1; short s2; }; };
	unsigned int bits1 : 5;
	int bits2 : 7;
	unsigned long long wide : 40;
	enum color color;
	struct inner *ptr;
	signed char sc;
	callback cb;
	int flex[];
} CORE;
struct outer___v2 { int renamed; } CORE;
struct crossing { int low : 20; int across : 9; } CORE;
enum __attribute__((packed)) small { S1, S2 };
struct grown { int a; long b; } CORE;
struct nowhere { int q; } CORE;
volatile unsigned long long sink;

SEC("kprobe") int fields(void *ctx)
{
	struct outer *o = ctx;
	struct outer___v2 *v = ctx;
	struct inner *i = ctx;
	sink = INFO(o->one.b, 0);
	sink = INFO(o->many[2].arr[3], 0);
	sink = INFO(o->many[1].arr, 1);
	sink = INFO(o->many[1].arr[1], 1);
	sink = INFO(o->s2, 2);
	sink = INFO(o->s2, 0);
	sink = INFO(v->renamed, 2);
	sink = INFO(v->renamed, 0);
	sink = INFO(o->bits1, 3);
	sink = INFO(o->bits2, 3);
	sink = INFO(o->sc, 3);
	sink = INFO(o->bits1, 0) + INFO(o->bits1, 1) + INFO(o->bits1, 4) + INFO(o->bits1, 5);
	sink = INFO(o->bits2, 0) + INFO(o->bits2, 1) + INFO(o->bits2, 4) + INFO(o->bits2, 5);
	sink = INFO(o->wide, 0) + INFO(o->wide, 1) + INFO(o->wide, 4) + INFO(o->wide, 5);
	sink = (unsigned long long)__builtin_preserve_access_index(&i[2].arr[1]);
	sink = (unsigned long long)__builtin_preserve_access_index(&o->flex[5]);
	sink = INFO(o->ptr, 0);
	sink = INFO(o->cb, 2);
	sink = INFO(o->color, 0);
	struct crossing *c = ctx;
	sink = INFO(c->across, 0) + INFO(c->across, 1) + INFO(c->across, 4) + INFO(c->across, 5);
	sink = INFO(o->one.arr[2], 0);
	return 0;
}

SEC("kprobe") int types(void *ctx)
{
	sink = __builtin_btf_type_id(*(struct inner *)0, 0);
	sink = __builtin_btf_type_id(*(struct inner *)0, 1);
	sink = TYPE(struct outer, 0);
	sink = TYPE(struct nowhere, 0);
	sink = TYPE(struct outer, 1);
	sink = TYPE(struct nowhere, 1);
	sink = TYPE(struct inner, 0);
	sink = TYPE(callback, 0);
	sink = TYPE(word, 0);
	sink = TYPE(nameless, 1);
	sink = TYPE(enum color, 0);
	sink = TYPE(enum small, 0);
	sink = TYPE(struct grown, 0);
	sink = VALUE(enum color, RED, 0);
	sink = VALUE(enum color, BLUE, 1);
	sink = VALUE(enum color___other, GREEN___x, 0);
	return 0;
}
"""

#: other orders, names of anonymous parts, sizes, signs; a flavor of the object's struct is this kernel's
FIRST = """
typedef unsigned int word;
typedef struct { int x; int y; } nameless;
struct inner { long b; int arr[5]; int a; };
enum color { RED = 7, BLUE = -4 };
typedef int (*callback)(struct inner *, long);
struct crossing { int before : 20; int across : 9; } x;
enum small { S1, S2 } s;
struct grown { long b; int more; int a; } g;
struct outer {
	int renamed;
	struct inner many[3];
	struct { union { struct { int z; struct { short s1; short s2; }; }; int u1; }; };
	int bits2 : 9;
	unsigned int bits1 : 3;
	struct inner one;
	unsigned long long before : 10;
	unsigned long long wide : 40;
	signed int sc;
	enum color color;
	struct inner *ptr;
	long cb;
	int flex[];
} o; nameless a; callback c; enum color k; word u;
"""
#: arrays that are too short or none, fields of other kinds, bitfields that are none, a function of other arguments
SECOND = """
struct inner { int a; long b; int arr[2]; int extra; };
enum color { BLUE = 40, RED, GREEN };
typedef int (*callback)(struct inner *);
struct crossing { int low : 30; int across : 9; } __attribute__((packed)) x;
enum __attribute__((packed)) small { S2, S1, S3 } s;
struct grown { int a; } g;
struct outer { char pad; struct inner one; struct inner many; int u1; int s2; long bits1; int bits2;
	unsigned long long wide; unsigned char sc; enum color color; long ptr; callback cb; int flex[3]; } o;
enum color k; callback c;
"""


def compiled(folder: Path, name: str, source: str) -> Path:
    """Compile a source to an object with BTF; return its path."""
    (folder / f"{name}.c").write_text(source)
    command = ["clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-w", "-c", f"{name}.c", "-o", f"{name}.o"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / f"{name}.o"
