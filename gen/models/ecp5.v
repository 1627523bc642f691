// Behaviour of the ECP5 primitives that target "ecp5" instantiates, in the modes used; any other
// mode stops the simulation. Written from Lattice's guides, named at each module. What these leave
// open is random: contents and registers before they are written, colliding reads. (It is not X:
// zero times unknown bits is zero in hardware, and X in Verilog.) Yosys, which cannot read $random,
// sees zeros.

// Two bits of a carry chain (FPGA-TN-02200, ripple mode of a slice): S = LUT4 ^ carry in; the carry
// goes on where the LUT4 gives 1, else it is what the table's lowest quarter gives for A and B.
module CCU2C (
    input CIN, A0, B0, C0, D0, A1, B1, C1, D1,
    output S0, S1, COUT
);
    parameter [15:0] INIT0 = 16'h0000;
    parameter [15:0] INIT1 = 16'h0000;
    parameter INJECT1_0 = "YES";
    parameter INJECT1_1 = "YES";

`ifndef YOSYS
    initial if (INJECT1_0 != "NO" || INJECT1_1 != "NO")
        $fatal(1, "CCU2C: INJECT1 is modelled as NO alone");
`endif

    wire propagate0 = INIT0[{D0, C0, B0, A0}];
    wire propagate1 = INIT1[{D1, C1, B1, A1}];
    wire carry = propagate0 ? CIN : INIT0[{2'b00, B0, A0}];
    assign S0 = propagate0 ^ CIN;
    assign S1 = propagate1 ^ carry;
    assign COUT = propagate1 ? carry : INIT1[{2'b00, B1, A1}];
endmodule

// Multiplier of 18 x 18 bits (FPGA-TN-02205), unsigned, with all three ranks of registers, or without
// those before and within.
module MULT18X18D (
    input CLK0, CE0, RST0, SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    output P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19,
    P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
    parameter REG_INPUTA_CLK = "NONE";
    parameter REG_INPUTA_CE = "CE0";
    parameter REG_INPUTA_RST = "RST0";
    parameter REG_INPUTB_CLK = "NONE";
    parameter REG_INPUTB_CE = "CE0";
    parameter REG_INPUTB_RST = "RST0";
    parameter REG_PIPELINE_CLK = "NONE";
    parameter REG_PIPELINE_CE = "CE0";
    parameter REG_PIPELINE_RST = "RST0";
    parameter REG_OUTPUT_CLK = "NONE";
    parameter REG_OUTPUT_CE = "CE0";
    parameter REG_OUTPUT_RST = "RST0";
    parameter GSR = "ENABLED";

`ifndef YOSYS
    initial if ((REG_INPUTA_CLK != "CLK0" && REG_INPUTA_CLK != "NONE")
            || REG_INPUTB_CLK != REG_INPUTA_CLK
            || (REG_PIPELINE_CLK != "CLK0" && REG_PIPELINE_CLK != "NONE")
            || REG_OUTPUT_CLK != "CLK0")
        $fatal(1, "MULT18X18D: registers are modelled with CLK0, or without before and within");
    initial if (REG_INPUTA_CE != "CE0" || REG_INPUTB_CE != "CE0"
            || REG_PIPELINE_CE != "CE0" || REG_OUTPUT_CE != "CE0")
        $fatal(1, "MULT18X18D: every rank of registers is modelled with CE0 alone");
    initial if (REG_INPUTA_RST != "RST0" || REG_INPUTB_RST != "RST0"
            || REG_PIPELINE_RST != "RST0" || REG_OUTPUT_RST != "RST0" || GSR != "DISABLED")
        $fatal(1, "MULT18X18D: every rank of registers is modelled with RST0 and no GSR alone");
    always @(posedge CLK0) if ({SIGNEDA, SIGNEDB, SOURCEA, SOURCEB} !== 4'b0000)
        $fatal(1, "MULT18X18D: factors are modelled as unsigned, from A and B alone");
`endif

    reg [17:0] a, b;
    reg [35:0] product, o;
`ifndef YOSYS
    initial begin
        {a, b} = {$random, $random};
        product = {$random, $random};
        o = {$random, $random};
    end
`endif
    wire [35:0] factors = {
        A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
        B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0
    };
    wire [17:0] factor_a = REG_INPUTA_CLK == "NONE" ? factors[35:18] : a;
    wire [17:0] factor_b = REG_INPUTA_CLK == "NONE" ? factors[17:0] : b;
    wire [35:0] found = {18'd0, factor_a} * {18'd0, factor_b};
    always @(posedge CLK0)
        if (RST0) {a, b, product, o} <= 108'd0;
        else if (CE0) begin
            {a, b} <= factors;
            product <= found;
            o <= REG_PIPELINE_CLK == "NONE" ? found : product;
        end
    assign {
        P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19,
        P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
    } = o;
endmodule

// Block RAM of 16 Kbit (FPGA-TN-02204), without initial contents. Port A writes, port B reads
// through the output register; both are equally wide, 1 to 18 bits. Of the addresses' lowest bits
// the narrower widths use all; 9 leaves out three, 18 four, two of which enable its bytes.
module DP16KD (
    input CLKA, CEA, OCEA, WEA, RSTA, CSA2, CSA1, CSA0,
    input CLKB, CEB, OCEB, WEB, RSTB, CSB2, CSB1, CSB0,
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1,
    ADA0,
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1,
    ADB0,
    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
    DIA4, DIA3, DIA2, DIA1, DIA0,
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5,
    DIB4, DIB3, DIB2, DIB1, DIB0,
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
    DOA4, DOA3, DOA2, DOA1, DOA0,
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
    DOB4, DOB3, DOB2, DOB1, DOB0
);
    parameter DATA_WIDTH_A = 18;
    parameter DATA_WIDTH_B = 18;
    parameter REGMODE_A = "NOREG";
    parameter REGMODE_B = "NOREG";
    parameter RESETMODE = "SYNC";
    parameter ASYNC_RESET_RELEASE = "SYNC";
    parameter CSDECODE_A = "0b000";
    parameter CSDECODE_B = "0b000";
    parameter WRITEMODE_A = "NORMAL";
    parameter WRITEMODE_B = "NORMAL";
    parameter GSR = "ENABLED";
    // Contents, 16 units of 18 bits in 20 bits each; with ones above a unit there are none.
    parameter [319:0] INITVAL_00 = ~320'd0;
    parameter [319:0] INITVAL_01 = ~320'd0;
    parameter [319:0] INITVAL_02 = ~320'd0;
    parameter [319:0] INITVAL_03 = ~320'd0;
    parameter [319:0] INITVAL_04 = ~320'd0;
    parameter [319:0] INITVAL_05 = ~320'd0;
    parameter [319:0] INITVAL_06 = ~320'd0;
    parameter [319:0] INITVAL_07 = ~320'd0;
    parameter [319:0] INITVAL_08 = ~320'd0;
    parameter [319:0] INITVAL_09 = ~320'd0;
    parameter [319:0] INITVAL_0A = ~320'd0;
    parameter [319:0] INITVAL_0B = ~320'd0;
    parameter [319:0] INITVAL_0C = ~320'd0;
    parameter [319:0] INITVAL_0D = ~320'd0;
    parameter [319:0] INITVAL_0E = ~320'd0;
    parameter [319:0] INITVAL_0F = ~320'd0;
    parameter [319:0] INITVAL_10 = ~320'd0;
    parameter [319:0] INITVAL_11 = ~320'd0;
    parameter [319:0] INITVAL_12 = ~320'd0;
    parameter [319:0] INITVAL_13 = ~320'd0;
    parameter [319:0] INITVAL_14 = ~320'd0;
    parameter [319:0] INITVAL_15 = ~320'd0;
    parameter [319:0] INITVAL_16 = ~320'd0;
    parameter [319:0] INITVAL_17 = ~320'd0;
    parameter [319:0] INITVAL_18 = ~320'd0;
    parameter [319:0] INITVAL_19 = ~320'd0;
    parameter [319:0] INITVAL_1A = ~320'd0;
    parameter [319:0] INITVAL_1B = ~320'd0;
    parameter [319:0] INITVAL_1C = ~320'd0;
    parameter [319:0] INITVAL_1D = ~320'd0;
    parameter [319:0] INITVAL_1E = ~320'd0;
    parameter [319:0] INITVAL_1F = ~320'd0;
    parameter [319:0] INITVAL_20 = ~320'd0;
    parameter [319:0] INITVAL_21 = ~320'd0;
    parameter [319:0] INITVAL_22 = ~320'd0;
    parameter [319:0] INITVAL_23 = ~320'd0;
    parameter [319:0] INITVAL_24 = ~320'd0;
    parameter [319:0] INITVAL_25 = ~320'd0;
    parameter [319:0] INITVAL_26 = ~320'd0;
    parameter [319:0] INITVAL_27 = ~320'd0;
    parameter [319:0] INITVAL_28 = ~320'd0;
    parameter [319:0] INITVAL_29 = ~320'd0;
    parameter [319:0] INITVAL_2A = ~320'd0;
    parameter [319:0] INITVAL_2B = ~320'd0;
    parameter [319:0] INITVAL_2C = ~320'd0;
    parameter [319:0] INITVAL_2D = ~320'd0;
    parameter [319:0] INITVAL_2E = ~320'd0;
    parameter [319:0] INITVAL_2F = ~320'd0;
    parameter [319:0] INITVAL_30 = ~320'd0;
    parameter [319:0] INITVAL_31 = ~320'd0;
    parameter [319:0] INITVAL_32 = ~320'd0;
    parameter [319:0] INITVAL_33 = ~320'd0;
    parameter [319:0] INITVAL_34 = ~320'd0;
    parameter [319:0] INITVAL_35 = ~320'd0;
    parameter [319:0] INITVAL_36 = ~320'd0;
    parameter [319:0] INITVAL_37 = ~320'd0;
    parameter [319:0] INITVAL_38 = ~320'd0;
    parameter [319:0] INITVAL_39 = ~320'd0;
    parameter [319:0] INITVAL_3A = ~320'd0;
    parameter [319:0] INITVAL_3B = ~320'd0;
    parameter [319:0] INITVAL_3C = ~320'd0;
    parameter [319:0] INITVAL_3D = ~320'd0;
    parameter [319:0] INITVAL_3E = ~320'd0;
    parameter [319:0] INITVAL_3F = ~320'd0;

    // Bits of an address that are left out, words, and the bits of the data that there are.
    localparam LOW = DATA_WIDTH_A == 18 ? 4 : DATA_WIDTH_A == 9 ? 3 : DATA_WIDTH_A == 4 ? 2
        : DATA_WIDTH_A == 2 ? 1 : 0;
    localparam WORDS = 16384 >> LOW;
    localparam [17:0] USED = (19'd1 << DATA_WIDTH_A) - 19'd1;
    localparam [20499:0] CONTENTS = {
        20'd0,
        INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A,
        INITVAL_39, INITVAL_38, INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34,
        INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30, INITVAL_2F, INITVAL_2E,
        INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28,
        INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24, INITVAL_23, INITVAL_22,
        INITVAL_21, INITVAL_20, INITVAL_1F, INITVAL_1E, INITVAL_1D, INITVAL_1C,
        INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16,
        INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10,
        INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A,
        INITVAL_09, INITVAL_08, INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04,
        INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00
    };

`ifndef YOSYS
    initial if (DATA_WIDTH_A != DATA_WIDTH_B || (DATA_WIDTH_A != 18 && DATA_WIDTH_A != 9
            && DATA_WIDTH_A != 4 && DATA_WIDTH_A != 2 && DATA_WIDTH_A != 1))
        $fatal(1, "DP16KD: both ports are modelled with 1, 2, 4, 9 or 18 bits each");
    initial if ((REGMODE_A != "NOREG" && REGMODE_A != "OUTREG") || REGMODE_B != "OUTREG")
        $fatal(1, "DP16KD: REGMODE is modelled as NOREG (without data) or OUTREG of A and OUTREG of B");
    initial if (RESETMODE != "SYNC" || ASYNC_RESET_RELEASE != "SYNC"
            || CSDECODE_A != "0b000" || CSDECODE_B != "0b000")
        $fatal(1, "DP16KD: resets are modelled as SYNC, selections as 0b000 alone");
    initial if (WRITEMODE_A != "NORMAL" || WRITEMODE_B != "NORMAL")
        $fatal(1, "DP16KD: WRITEMODE is modelled as NORMAL alone");
    always @(posedge CLKB) if ({WEB, RSTA, RSTB, CSA2, CSA1, CSA0, CSB2, CSB1, CSB0} !== 9'd0)
        $fatal(1, "DP16KD: modelled without writes of B, resets and selections");
    always @(posedge CLKA) if (WEA && DATA_WIDTH_A == 18 && {ADA1, ADA0} !== 2'b11)
        $fatal(1, "DP16KD: a write of 18 bits is modelled with both bytes enabled alone");
`endif

    wire [13:0] address_a = {
        ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0
    };
    wire [13:0] address_b = {
        ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0
    };
    wire [17:0] data = {
        DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
        DIA4, DIA3, DIA2, DIA1, DIA0
    };
    reg [17:0] words [0:WORDS - 1];
    reg [17:0] read_a, o_a, read, o;
    wire [17:0] unknown;
    integer place;
    initial if (!CONTENTS[18]) for (place = 0; place < WORDS; place = place + 1)
        words[place] = CONTENTS[20 * (place << LOW >> 4) + 9 * (place << LOW >> 3 & 1)
                                + (place << LOW & 7) +: 18] & USED;
`ifndef YOSYS
    reg [17:0] noise;
    initial begin
        if (CONTENTS[18]) for (place = 0; place < WORDS; place = place + 1) words[place] = $random;
        {read_a, o_a, read, o, noise} = {$random, $random, $random};
    end
    always @(posedge CLKB) noise <= $random;
    assign unknown = noise;
`else
    assign unknown = 18'd0;
`endif
    always @(posedge CLKA) begin
        if (CEA && WEA) words[address_a >> LOW] <= data & USED;
        if (CEA) read_a <= WEA ? unknown : words[address_a >> LOW];
        if (CEA && OCEA) o_a <= read_a;
    end
    always @(posedge CLKB) begin
        if (CEB) read <= CEA && WEA && address_a >> LOW == address_b >> LOW
            ? unknown : words[address_b >> LOW];
        if (CEB && OCEB) o <= read;
    end
    assign {
        DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
        DOB4, DOB3, DOB2, DOB1, DOB0
    } = o;
    assign {
        DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
        DOA4, DOA3, DOA2, DOA1, DOA0
    } = REGMODE_A == "OUTREG" ? o_a : 18'd0;
endmodule

// Lattice FPGA-TN-02200, ECP5 slices: a look-up table of four inputs, A the lowest.
module LUT4 (input A, B, C, D, output Z);
    parameter [15:0] INIT = 16'd0;
    assign Z = INIT[{D, C, B, A}];
endmodule

// Dynamic clock control (FPGA-TN-02200): the clock goes on while CE, taken while it is low, is 1.
module DCCA (
    input CLKI, CE,
    output CLKO
);
    reg enable;
    always @* if (!CLKI) enable = CE;
    assign CLKO = CLKI & enable;
endmodule
