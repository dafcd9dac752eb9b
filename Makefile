# leafdisk
#
#   make            build/leafdisk and build/leafctl
#   make demo       a small pool, mounted, with a file system on it; make demo-stop
#   make check      every test, WORKERS (3 for each processor) at a time; check-asan: the same under
#                   ASan and UBSan; check-tsan: under ThreadSanitizer
#   make torture    the same tests, longer, and a stress of everything at once, ten minutes for each
#                   mode (LEAFDISK_TORTURE_SECONDS), and as long of snapshots and forks, without and
#                   with kills; SAN=address|thread: under a sanitizer.
#                   PYTEST_FLAGS="-k torture": the stress alone; "-k live": snapshots and forks
#   make bench      speed against a raw file and other systems: test/bench/README (QUICK=1, BENCH_FLAGS);
#                   BASELINE=REV: and against that revision of its own
#   make fuzz       hostile images, FUZZ_SECONDS long
#   make install    PREFIX (/usr/local), DESTDIR; uninstall
#   make deb        a Debian package, in build/deb
#   make deps       what the above need, through apt-get
#   make fmt clean
#
# V=1 shows the commands. SAN=address|thread|undefined builds into build/asan,
# build/tsan or build/ubsan. WERROR=1|0 turns warnings into errors or not.

VERSION := 0.1.0

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/leafdisk
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions
UNITDIR ?= $(PREFIX)/lib/systemd/system
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
# mount(8) looks nowhere else for what mounts -t leafdisk.
HELPERDIR ?= $(if $(filter /usr /usr/local,$(PREFIX)),/sbin,$(PREFIX)/sbin)
PYTHON ?= /usr/bin/python3
CC ?= cc
FUZZ_CC ?= clang
FUZZ_SECONDS ?= 60
INSTALL ?= install
PYTEST_FLAGS ?=
# A test waits, for storage and deadlines, two thirds of its time. PYTEST_FLAGS=-n0: one process.
WORKERS ?= $(shell echo $$((3 * $$(nproc))))

PACKAGES := fuse3 glib-2.0 json-glib-1.0 libxxhash blkid libseccomp
Q := $(if $(V),,@)
say = $(if $(V),:,printf '  %-5s %s\n')

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:

# ---- Sources -----------------------------------------------------------------

SOURCES := $(sort $(wildcard src/*/*.c src/*/*/*.c))
leafdisk_SOURCES := $(filter src/fuse/%,$(SOURCES))
leafctl_SOURCES := $(filter src/ctl/%,$(SOURCES))
LIBRARY_SOURCES := $(filter-out $(leafdisk_SOURCES) $(leafctl_SOURCES),$(SOURCES))
UNIT_SOURCES := $(sort $(wildcard test/unit/test_*.c))
FUZZ_SOURCES := $(sort $(wildcard test/fuzz/fuzz_*.c))
ALL_SOURCES := $(LIBRARY_SOURCES) $(leafdisk_SOURCES) $(leafctl_SOURCES) $(UNIT_SOURCES) $(FUZZ_SOURCES)
PROGRAMS := leafdisk leafctl
UNITS := $(UNIT_SOURCES:test/unit/%.c=%)

# ---- Variants: a folder, a compiler and flags each ---------------------------

BASE_FLAGS := -std=gnu11 -D_GNU_SOURCE -DLEAFDISK_VERSION='"$(VERSION)"' -Iinclude -Isrc -Wall -Wextra \
	-Wstrict-prototypes -Wmissing-prototypes -fstack-protector-strong -pthread -g
werror := $(if $(filter 0,$(WERROR)),,-Werror)
faults := -DLEAFDISK_FAULTS $(werror)
sanitizer := -O1 -fno-omit-frame-pointer -fno-sanitize-recover=all

release_DIR := build
release_FLAGS := -O2 -DNDEBUG -D_FORTIFY_SOURCE=2 $(if $(filter 1,$(WERROR)),-Werror)
release_LINK := -Wl,-z,relro,-z,now
check_DIR := build/check
check_FLAGS := -O2 $(faults)
asan_DIR := build/asan
asan_FLAGS := $(sanitizer) $(faults) -fsanitize=address,undefined
tsan_DIR := build/tsan
tsan_FLAGS := $(sanitizer) $(faults) -fsanitize=thread
tsan_SOURCES := test/tsan/glib.c
ubsan_DIR := build/ubsan
ubsan_FLAGS := $(sanitizer) $(faults) -fsanitize=undefined
fuzz_DIR := build/fuzz
fuzz_FLAGS := $(sanitizer) -DLEAFDISK_FAULTS -Wno-macro-redefined -fsanitize=fuzzer-no-link,address,undefined
fuzz_CC := $(FUZZ_CC)
VARIANTS := release check asan tsan ubsan fuzz

SAN_VARIANT_address := asan
SAN_VARIANT_thread := tsan
SAN_VARIANT_undefined := ubsan
VARIANT := $(if $(SAN),$(SAN_VARIANT_$(SAN)),release)
$(if $(VARIANT),,$(error SAN=$(SAN): it is address, thread or undefined))

# Packages are installed before anything is compiled, when the goal asks for it.
goal_deps = $(if $(filter $(1),$(MAKECMDGOALS)),$(2))
DEPS_FIRST := $(or $(call goal_deps,deps,deps),$(call goal_deps,bench,deps-bench),$(call goal_deps,fuzz,deps-fuzz), \
	$(call goal_deps,deb,deps-deb), \
	$(call goal_deps,torture,deps-torture),$(call goal_deps,check check-asan check-tsan,deps-check),$(call goal_deps,demo,deps-build))

# Expanded when a recipe runs, so after the packages are there.
package_flags = $(shell pkg-config --cflags $(PACKAGES))
package_libs = $(shell pkg-config --libs $(PACKAGES)) -laio

# $(call objects,variant,sources)
objects = $(patsubst %.c,$($(1)_DIR)/obj/%.o,$(2))
compiler = $(or $($(1)_CC),$(CC))
link = $(call compiler,$(1)) $(BASE_FLAGS) $($(1)_FLAGS) $($(1)_LINK) $(CFLAGS) $(LDFLAGS)

define variant_rules
$(1)_PROGRAMS := $(addprefix $($(1)_DIR)/,$(PROGRAMS))
$(1)_UNITS := $(addprefix $($(1)_DIR)/unit/,$(UNITS))
$(1)_LIBRARY := $(call objects,$(1),$(LIBRARY_SOURCES) $($(1)_SOURCES))

# Rewritten only when the flags change, so that every object follows them.
$($(1)_DIR)/flags: FORCE | $(DEPS_FIRST)
	@pkg-config --exists --print-errors $(PACKAGES) || { echo "run 'make deps' first" >&2; exit 1; }
	@mkdir -p $$(@D)
	@printf '%s\n' "$$$$FLAGS" | cmp -s - $$@ || printf '%s\n' "$$$$FLAGS" >$$@
$($(1)_DIR)/flags: export FLAGS = $(call compiler,$(1)) $(BASE_FLAGS) $($(1)_FLAGS) $(CPPFLAGS) $(CFLAGS)

$($(1)_DIR)/obj/%.o: %.c $($(1)_DIR)/flags
	@mkdir -p $$(@D)
	@$$(say) CC $$@
	$$(Q)$(call compiler,$(1)) $(BASE_FLAGS) $($(1)_FLAGS) $$(CPPFLAGS) $(CFLAGS) $$(package_flags) -MMD -MP -c -o $$@ $$<

$(foreach program,$(PROGRAMS),
$($(1)_DIR)/$(program): $$($(1)_LIBRARY) $(call objects,$(1),$($(program)_SOURCES))
	@$$(say) LD $$@
	$$(Q)$$(call link,$(1)) -o $$@ $$^ $$(package_libs)
)
$($(1)_DIR)/unit/%: $($(1)_DIR)/obj/test/unit/%.o $$($(1)_LIBRARY)
	@mkdir -p $$(@D)
	@$$(say) LD $$@
	$$(Q)$$(call link,$(1)) -o $$@ $$^ $$(package_libs)

-include $(patsubst %.o,%.d,$(call objects,$(1),$(ALL_SOURCES) $($(1)_SOURCES)))
endef
$(foreach variant,$(VARIANTS),$(eval $(call variant_rules,$(variant))))

build/fuzz/fuzz_%: build/fuzz/obj/test/fuzz/fuzz_%.o $(fuzz_LIBRARY)
	@$(say) LD $@
	$(Q)$(call link,fuzz) -fsanitize=fuzzer -o $@ $^ $(package_libs)

# ---- Goals -------------------------------------------------------------------

.PHONY: all demo demo-stop check check-asan check-tsan torture bench fuzz install uninstall deb deps fmt clean FORCE
FORCE:
.SECONDARY:

all: $($(VARIANT)_PROGRAMS)

demo: $(release_PROGRAMS)
	@test/demo.sh start
demo-stop:
	@test/demo.sh stop

# $(call suite,variant,environment). A loadgroup without groups hands out single
# tests, in the order that test/conftest.py gives them.
suite = $(2) LEAFDISK_BUILD=$(CURDIR)/$($(1)_DIR) $(PYTHON) -m pytest -q --durations=5 \
	-n $(WORKERS) --dist loadgroup $(PYTEST_FLAGS) test
check: $(release_PROGRAMS) $(check_PROGRAMS) $(check_UNITS)
	$(Q)$(call suite,check)
check-asan: $(release_PROGRAMS) $(asan_PROGRAMS) $(asan_UNITS)
	$(Q)$(call suite,asan)
check-tsan: $(release_PROGRAMS) $(tsan_PROGRAMS) $(tsan_UNITS)
	$(Q)$(call suite,tsan)
TORTURED := $(if $(SAN),$(VARIANT),check)
torture: $(release_PROGRAMS) $($(TORTURED)_PROGRAMS) $($(TORTURED)_UNITS)
	$(Q)$(call suite,$(TORTURED),LEAFDISK_TORTURE=1)

# BASELINE=REV: that revision, built beside this one, is measured with it.
BASELINE_TREE := build/baseline
bench: $(release_PROGRAMS)
	$(if $(BASELINE),$(Q)rm -rf $(BASELINE_TREE) && mkdir -p $(BASELINE_TREE) && \
		git archive "$(BASELINE)" | tar -x -C $(BASELINE_TREE) && $(MAKE) -C $(BASELINE_TREE) all)
	$(Q)LEAFDISK_BUILD=$(CURDIR)/build $(if $(BASELINE),LEAFDISK_BASELINE=$(CURDIR)/$(BASELINE_TREE)/build) \
		$(PYTHON) test/bench/bench.py --output build/bench.json $(if $(QUICK),--quick) $(BENCH_FLAGS)

fuzz: $(FUZZ_SOURCES:test/fuzz/%.c=build/fuzz/%) $(release_PROGRAMS)
	$(Q)$(foreach target,$(filter build/fuzz/%,$^),test/fuzz/run.sh $(target) $(FUZZ_SECONDS) &&) :

# Packages: see test/deps.sh.
.PHONY: deps-build deps-check deps-torture deps-bench deps-fuzz deps-deb
deps:
	@test/deps.sh build check torture bench fuzz deb
deps-build:
	@test/deps.sh build
deps-check:
	@test/deps.sh build check
deps-bench:
	@test/deps.sh build bench
deps-fuzz:
	@test/deps.sh build fuzz
deps-torture:
	@test/deps.sh build check deb torture
deps-deb:
	@test/deps.sh build deb

# ---- What is installed: each file to its place, with its mode

MAN_PAGES := $(sort $(wildcard man/*.[1-8]))
DOCUMENTS := README.md NEWS LICENSE etc/leafdisk.conf
UNIT_FILES := $(patsubst etc/systemd/%.in,%,$(wildcard etc/systemd/*.in))
MADE := $($(VARIANT)_DIR)/install

# $(call placed,mode,directory,files)
placed = $(foreach file,$(3),$(1):$(file):$(DESTDIR)$(2)/$(notdir $(file)))
INSTALLED = $(call placed,755,$(BINDIR),$($(VARIANT)_PROGRAMS)) \
	$(call placed,644,$(DOCDIR),$(DOCUMENTS)) \
	$(foreach page,$(MAN_PAGES),$(call placed,644,$(MANDIR)/man$(subst .,,$(suffix $(page))),$(page))) \
	$(call placed,644,$(UNITDIR),$(addprefix $(MADE)/,$(UNIT_FILES))) \
	$(call placed,644,$(TMPFILESDIR),$(MADE)/leafdisk.conf) \
	$(call placed,644,$(COMPLETIONDIR),$(MADE)/leafctl)
# Other names of these.
LINKED = $(DESTDIR)$(HELPERDIR)/mount.leafdisk:$(BINDIR)/leafdisk \
	$(DESTDIR)$(MANDIR)/man8/mount.leafdisk.8:leafdisk.8 \
	$(DESTDIR)$(COMPLETIONDIR)/leafdisk:leafctl
field = $(word $(1),$(subst :, ,$(2)))

$(MADE)/%.service: etc/systemd/%.service.in FORCE
	@mkdir -p $(@D)
	$(Q)sed 's,@BINDIR@,$(BINDIR),' $< >$@
$(MADE)/leafdisk.conf: etc/tmpfiles.conf
	@mkdir -p $(@D)
	$(Q)cp $< $@
$(MADE)/leafctl: etc/completion/tables.sh etc/completion/leafdisk.bash $($(VARIANT)_PROGRAMS)
	@mkdir -p $(@D)
	$(Q){ etc/completion/tables.sh $($(VARIANT)_DIR) && cat etc/completion/leafdisk.bash; } >$@

install: all $(addprefix $(MADE)/,$(UNIT_FILES) leafdisk.conf leafctl)
	$(Q)$(foreach f,$(INSTALLED),$(INSTALL) -D -m $(call field,1,$f) $(call field,2,$f) $(call field,3,$f) &&) :
	$(Q)$(foreach f,$(LINKED),mkdir -p $(dir $(call field,1,$f)) && ln -sf $(call field,2,$f) $(call field,1,$f) &&) :

uninstall:
	$(Q)rm -f $(foreach f,$(INSTALLED),$(call field,3,$f)) $(foreach f,$(LINKED),$(call field,1,$f))
	$(Q)if [ -d $(DESTDIR)$(DOCDIR) ]; then rmdir $(DESTDIR)$(DOCDIR); fi

# A copy, so that nothing is built or left in this tree.
DEB_TREE := build/deb/leafdisk-$(VERSION)
deb: | $(DEPS_FIRST)
	$(Q)rm -rf build/deb && mkdir -p $(DEB_TREE)
	$(Q)tar -c --exclude=./build --exclude=./.git . | tar -x -C $(DEB_TREE)
	$(Q)cd $(DEB_TREE) && dpkg-buildpackage -us -uc -b $(if $(V),,>../build.log 2>&1 || { cat ../build.log; false; })
	$(Q)lintian --allow-root --fail-on error,warning build/deb/*.changes

fmt:
	$(Q)find include src test -name '*.[ch]' -exec clang-format -i {} +

clean: demo-stop
	$(Q)rm -rf build
