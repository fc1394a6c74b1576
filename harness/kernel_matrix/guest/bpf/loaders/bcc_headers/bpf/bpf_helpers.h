/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stands in for libbpf's bpf_helpers.h when bcc compiles a source that is written for libbpf.
 *
 * bcc includes its own helpers.h before any source: it declares the helpers as libbpf's header does, but has no words
 * for maps of BTF. The loader defines MAP_NUMBER, which says by a map's address what bcc calls it: bcc makes the maps,
 * and replaces the number by the file descriptor (bpf_pseudo_fd()).
 */
#ifndef BCC_HEADERS_BPF_HELPERS_H
#define BCC_HEADERS_BPF_HELPERS_H

#define __uint(name, value)  int(*name)[value]
#define __type(name, value)  typeof(value) *name
#define __array(name, value) typeof(value) *name[]

/*
 * What section a program or map is in, the loader reads in the object. bcc finds programs in its main file only, where
 * the loader writes one for each: what is here is inlined there, and what is not used is dropped.
 */
#define SEC(name)    __attribute__((internal_linkage, unused))

#define BCC_MAP(map) ((void *)bpf_pseudo_fd(1, MAP_NUMBER(map)))

/* bcc declares int, which takes two more instructions in each caller to extend */
#define bpf_probe_read_user			    ((long (*)(void *, __u32, const void *))BPF_FUNC_probe_read_user)
#define bpf_probe_read_kernel			    ((long (*)(void *, __u32, const void *))BPF_FUNC_probe_read_kernel)
#define bpf_probe_read_user_str			    ((long (*)(void *, __u32, const void *))BPF_FUNC_probe_read_user_str)

#define bpf_map_lookup_elem(map, key)		    bpf_map_lookup_elem(BCC_MAP(map), key)
#define bpf_map_update_elem(map, key, value, flags) bpf_map_update_elem(BCC_MAP(map), key, value, flags)
#define bpf_map_delete_elem(map, key)		    bpf_map_delete_elem(BCC_MAP(map), key)
#define bpf_ringbuf_reserve(map, size, flags)	    bpf_ringbuf_reserve(BCC_MAP(map), size, flags)
#define bpf_ringbuf_output(map, data, size, flags)  bpf_ringbuf_output(BCC_MAP(map), data, size, flags)
#define bpf_ringbuf_query(map, flags)		    bpf_ringbuf_query(BCC_MAP(map), flags)

#endif
