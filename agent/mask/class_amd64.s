#include "textflag.h"

// The three bits between the highest and the lowest four of a byte, as one of eight.
DATA bits<>+0(SB)/8, $0x8040201008040201
DATA bits<>+8(SB)/8, $0x8040201008040201
GLOBL bits<>(SB), RODATA|NOPTR, $16

DATA nibble<>+0(SB)/4, $0x0f0f0f0f
GLOBL nibble<>(SB), RODATA|NOPTR, $4

DATA highest<>+0(SB)/4, $0x80808080
GLOBL highest<>(SB), RODATA|NOPTR, $4

// LOOKUP makes zeros in found of those of 32 bytes that are not in the class. A shuffle takes the entry that the lowest four bits of
// a byte name, and zero where its highest bit is set; so each byte is looked up in one of the rows, and gets zero from the other.
#define LOOKUP(place, found, v, w) \
	VMOVDQU place, v        \
	VPXOR   v, Y4, w        \
	VPSHUFB v, Y0, found    \
	VPSHUFB w, Y1, w        \
	VPSRLW  $4, v, v        \
	VPAND   v, Y3, v        \
	VPSHUFB v, Y2, v        \
	VPOR    w, found, found \
	VPAND   v, found, found

// func leapVectors(text []byte, rows *[2][16]uint8) int
TEXT ·leapVectors(SB), NOSPLIT, $0-40
	MOVQ text_base+0(FP), SI
	MOVQ text_len+8(FP), BX
	MOVQ rows+24(FP), DX
	VBROADCASTI128 (DX), Y0
	VBROADCASTI128 16(DX), Y1
	VBROADCASTI128 bits<>(SB), Y2
	VPBROADCASTD nibble<>(SB), Y3
	VPBROADCASTD highest<>(SB), Y4
	VPXOR Y5, Y5, Y5
	XORQ  AX, AX         // where it looks
	LEAQ  -32(BX), CX    // where the last vector begins
	LEAQ  -128(BX), DX   // where the last four begin

four:
	CMPQ AX, DX
	JGT  one
	LOOKUP(0(SI)(AX*1), Y6, Y7, Y8)
	LOOKUP(32(SI)(AX*1), Y9, Y10, Y11)
	LOOKUP(64(SI)(AX*1), Y12, Y13, Y14)
	LOOKUP(96(SI)(AX*1), Y7, Y8, Y10)
	VPOR Y6, Y9, Y9
	VPOR Y12, Y7, Y7
	VPOR Y9, Y7, Y7
	VPTEST Y7, Y7
	JNZ  one
	ADDQ $128, AX
	JMP  four

one:
	CMPQ AX, BX
	JGE  none
	CMPQ AX, CX
	CMOVQGT CX, AX       // the last overlaps with what was looked at, and there nothing was
	LOOKUP(0(SI)(AX*1), Y6, Y7, Y8)
	VPCMPEQB Y5, Y6, Y6
	VPMOVMSKB Y6, DI
	NOTL DI
	TESTL DI, DI
	JNZ  found
	ADDQ $32, AX
	JMP  one

found:
	BSFL DI, DI
	ADDQ DI, AX
	MOVQ AX, ret+32(FP)
	VZEROUPPER
	RET

none:
	MOVQ BX, ret+32(FP)
	VZEROUPPER
	RET
