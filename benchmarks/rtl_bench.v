// Feeds the engine from files as fast as it takes, and counts the cycles to the last result.
`timescale 1ns / 1ps
module rtl_bench;
    parameter OPERATIONS = 1, ROWS = 1, MASKS = 1, VALUES = 1, WORDS = 1, RESULTS = 1;
    parameter OPERATION_WIDTH = 1, MASK_WIDTH = 1, RESULT_WIDTH = 1;

    reg clk = 0, rst = 1;
    always #5 clk = ~clk;

    reg [OPERATION_WIDTH-1:0] operations [0:OPERATIONS];
    reg [15:0] rows   [0:ROWS];
    reg [MASK_WIDTH-1:0] masks [0:MASKS];
    reg [63:0] values [0:VALUES];
    reg [63:0] words  [0:WORDS];
    integer operation_at = 0, row_at = 0, mask_at = 0, value_at = 0, word_at = 0;
    integer results = 0, cycles = 0;
    reg [31:0] checksum = 0;

    wire operation_ready, row_ready, mask_ready, value_ready, word_ready, o_valid;
    wire [RESULT_WIDTH-1:0] o_payload;

    exactum_engine engine (
        .clk(clk), .rst(rst),
        .i_operation__payload(operations[operation_at]), .i_operation__ready(operation_ready),
        .i_operation__valid(operation_at < OPERATIONS),
        .i_row__payload(rows[row_at]), .i_row__ready(row_ready), .i_row__valid(row_at < ROWS),
        .i_mask__payload(masks[mask_at]), .i_mask__ready(mask_ready),
        .i_mask__valid(mask_at < MASKS),
        .i_values__payload(values[value_at]), .i_values__ready(value_ready),
        .i_values__valid(value_at < VALUES),
        .i_b__payload(words[word_at]), .i_b__ready(word_ready), .i_b__valid(word_at < WORDS),
        .o__payload(o_payload), .o__valid(o_valid), .o__ready(1'b1)
    );

    initial begin
        $readmemh("operations.hex", operations);
        $readmemh("rows.hex", rows);
        $readmemh("masks.hex", masks);
        $readmemh("values.hex", values);
        $readmemh("words.hex", words);
        repeat (4) @(posedge clk);
        rst <= 0;
    end

    always @(posedge clk) if (!rst) begin
        cycles <= cycles + 1;
        if (operation_ready && operation_at < OPERATIONS) operation_at <= operation_at + 1;
        if (row_ready && row_at < ROWS) row_at <= row_at + 1;
        if (mask_ready && mask_at < MASKS) mask_at <= mask_at + 1;
        if (value_ready && value_at < VALUES) value_at <= value_at + 1;
        if (word_ready && word_at < WORDS) word_at <= word_at + 1;
        if (o_valid) begin
            results <= results + 1;
            checksum <= {checksum[30:0], checksum[31]} ^ o_payload[31:0];
            if (results == RESULTS - 1) begin
                $display("%0d %08h", cycles + 1, {checksum[30:0], checksum[31]} ^ o_payload[31:0]);
                $finish;
            end
        end
    end
endmodule
