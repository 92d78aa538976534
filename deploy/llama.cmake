# Build options of llama.cpp that cannot be given as -D arguments: llama-cpp-python forces its own values into the
# CMake cache, and only a normal variable set before its project() wins over those. CMAKE_TOOLCHAIN_FILE names this
# file, and CMAKE reads a toolchain file that early. It chooses no compiler: this is a native build.

# llama.cpp's "common" library serves its own command-line programs; edged uses libllama alone.
set(LLAMA_BUILD_COMMON OFF)

# A wheel holds no symbolic links: libllama.so, libllama.so.0 and libllama.so.0.0.1 would be three whole copies, and
# two of libggml loaded side by side keep two lists of back ends. One name, one file.
set(CMAKE_PLATFORM_NO_VERSIONED_SONAME ON)

# Two of llama.cpp's ways on recent Xeons are kept from it, by hiding that the CPU has what they are made of; it then
# takes those for other CPUs with AVX-512. Elsewhere the options hide nothing.
# - AMX: GCC 12, of Debian 12, reads eight bytes of the tile configuration where the instruction reads 64, and drops the
#   stores of the others: SIGSEGV in the first pass (llama.cpp's pull request 26954 tells of the same).
# - AVX512-FP16: its dot products take 128 numbers at once, and heads of 64, as SmolLM2's are, fall through to a loop
#   over single numbers: eight answers were written at 0.78 of the speed behind 60 tokens, at 0.52 behind 600.
set(CMAKE_C_FLAGS_INIT "-U__AMX_INT8__ -U__AVX512FP16__")
set(CMAKE_CXX_FLAGS_INIT "-U__AMX_INT8__ -U__AVX512FP16__")
