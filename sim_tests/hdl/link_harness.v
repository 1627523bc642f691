// Runs a link on a script: bytes to send, and how many bytes must have come back before that.
//
// Files: +script (a word a line: bit 31 clear: a byte to send; set: wait for so many bytes),
// +out: "o BYTE", "w ADDRESS DATA", "r ADDRESS", and "e TAKEN DROPPED REPEATED" at the end.
// +length, +bytes: words of the script, bytes expected in all. +stall_i, +stall_o, +stall_bus: of
// 256 cycles, so many stall.
`timescale 1ns / 1ps
module link_harness;
    reg clk = 0, rst = 1;
    always #5 clk = ~clk;

    reg [31:0] script [0:(1 << 22) - 1];
    reg [8 * 256 - 1:0] name;
    integer out, length, bytes, stall_i, stall_o, stall_bus, patience;
    integer at = 0, received = 0, idle = 0;

    reg [63:0] memory [0:511], registers [0:31];
    reg [63:0] asked [0:3];
    integer first = 0, asks = 0, n;

    reg i_valid = 0, o_ready = 0, request_ready = 0, reply_valid = 0;
    reg [7:0] i_byte = 0;
    reg [63:0] reply = 0;
    wire i_ready, o_valid, request_valid, reply_ready;
    wire [7:0] o_byte;
    wire [96:0] request;
    wire [31:0] taken;
    wire [15:0] dropped, repeated;
    wire [31:0] address = request[95:64];

    link dut (
        .clk(clk), .rst(rst),
        .i__valid(i_valid), .i__payload(i_byte), .i__ready(i_ready),
        .o__valid(o_valid), .o__payload(o_byte), .o__ready(o_ready),
        .o_request__valid(request_valid), .o_request__payload(request),
        .o_request__ready(request_ready),
        .i_reply__valid(reply_valid), .i_reply__payload(reply), .i_reply__ready(reply_ready),
        .taken(taken), .dropped(dropped), .repeated(repeated));

    function stalls(input integer of_256);
        stalls = ($urandom & 255) < of_256;
    endfunction

    initial begin
        if (!$value$plusargs("script=%s", name)) $fatal;
        $readmemh(name, script);
        if (!$value$plusargs("out=%s", name)) $fatal;
        out = $fopen(name, "w");
        if (!$value$plusargs("length=%d", length)) $fatal;
        if (!$value$plusargs("bytes=%d", bytes)) $fatal;
        if (!$value$plusargs("stall_i=%d", stall_i)) $fatal;
        if (!$value$plusargs("stall_o=%d", stall_o)) $fatal;
        if (!$value$plusargs("stall_bus=%d", stall_bus)) $fatal;
        for (n = 0; n < 512; n = n + 1) memory[n] = 0;
        for (n = 0; n < 32; n = n + 1) registers[n] = 0;
        repeat (3) @(posedge clk);
        rst <= 0;
    end

    always @(posedge clk) if (!rst) begin
        idle = idle + 1;

        // Bytes that are sent.
        if (i_valid && i_ready) begin
            i_valid <= 0;
            idle = 0;
        end
        if ((!i_valid || i_ready) && !stalls(stall_i) && at < length) begin
            if (!script[at][31]) begin
                i_valid <= 1;
                i_byte <= script[at][7:0];
                at = at + 1;
            end else if (received >= script[at][30:0]) at = at + 1;
        end

        // Bytes that come back.
        if (o_valid && o_ready) begin
            $fwrite(out, "o %02x\n", o_byte);
            received = received + 1;
            idle = 0;
        end
        o_ready <= !stalls(stall_o);

        // The bus.
        if (reply_valid && reply_ready) reply_valid <= 0;
        if ((!reply_valid || reply_ready) && asks > 0 && !stalls(stall_bus)) begin
            reply_valid <= 1;
            reply <= asked[first];
            first = (first + 1) % 4;
            asks = asks - 1;
        end
        if (request_valid && request_ready) begin
            idle = 0;
            if (request[96]) begin
                $fwrite(out, "w %08x %016x\n", address, request[63:0]);
                if (address[31]) registers[address[4:0]] = request[63:0];
                else memory[address[8:0]] = request[63:0];
            end else begin
                $fwrite(out, "r %08x\n", address);
                asked[(first + asks) % 4] =
                    address[31] ? registers[address[4:0]] : memory[address[8:0]];
                asks = asks + 1;
            end
        end
        request_ready <= !stalls(stall_bus) && asks < 3;

        if (idle > 20000 || (idle > 200 && at == length && received >= bytes)) begin
            $fwrite(out, "e %0d %0d %0d\n", taken, dropped, repeated);
            $fclose(out);
            $finish(0);
        end
    end
endmodule
