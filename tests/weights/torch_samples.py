"""Files that PyTorch 2.13.0 wrote, for tests that run without it: each with one `torch.save`.

The zip archives are kept compressed (they are mostly padding), the bytes as base85. What they hold
stands in `test_torch_files.py`.
"""

import base64
import zlib


def _file(text):
    return zlib.decompress(base64.b85decode("".join(text.split())))


VIEWS_ZIP = _file(
    """
c-o~^zi-n(6h8lm6Wo#}rKLYW6%z^)q_&%+Er^y{$cu-jsgNR;;5ygZ!i{_OB?TlzB-BX!1#F0kor#hD3zZNP0}=x;u`+TO)6{
m9M9@>7Pl?|5z0dEycPZ-}4?rpf`c?)^0>d*cy9F2P1~&2sj~z`-gNKpTW=+#|9B5+OZTRA*SBD;~-?vRHB5<REm|T_c1J6D55
o=<X5aw%5Y&*VK^WaX?cIq_@8@}t+T8fCcT&|iV`98@s_8{T|h^RTPfwzMnMU<#ABu7F*l_R@(&_qdn9HZ2hp3qsH?Vt-fuQMG
azOtx>F^tA5=wekM$++n?U>&6`Qpw`2ge6#A?8KH12#D*TjLztM2W127Bu1AiXsVhZSi^A}5KW&#yCP(CnGi4-%}@g72+h*RTm
YWO=t>1$ZRX2*GWGiVtZ<z`Xp{$beFjYTx}M*4y?q1MTF~=JcQrK|Yd%>rrT*~i%S$ST#$f7suzW`Sx4|{TvG*GLuz@vosh@rH
Dix@J^+WWNB_-IQ0<vJeCt&9(hAuUWrr!CVx~I#rF?Jx;aCG<E96e!SsD?CHi@17G($w4M5D>7o*U94^`H*OncuV4##8(nvgUk
|%Yb2x%s`Sb8-8G3Cc!bias8U%|GoZiz@kh$J`R>tsI%xb*&WX?o^jvkW{x6BN`pKKU2cyq_0Vrn%?7or@J)1c2nL%%lnqAk_{
6C73iX~Z=R*K3}NnR~2OGRb1ASue~a<Nd5it>sgD@CawOH}2y{o+TC=*V?dGE{6&XLvd@eahqaU>qGDz?lfL#ehNc94846(R_s
DBuvsbxpAKGAY>yv6&CalU>qKHXF3A^%!1hL#Ia!)MzL)!hLz*ku!klh*iRwsfZm0Vb|L!CJQ!iRvMvZWPc6#b>LF9HeT)tE-+
ZtW9Q~^TTr&6`+`b7Rz@)nQLGB;2E0N9
"""
)
VIEWS_LEGACY = _file(
    """
c-n1|%}V4z5XU<oGip2P=&r7x;4xl?*%;TIlM3Rc(be(N7YSq1OtOUZRHvi3Ak1Y4^%*>P^eyyJy!r@&hpkLNgq@IoK`K?he|2
@=yraqc{lVM%@5ke%M&CSqwJ=@-ad@2&(o<5)Kqmf$P+2TfFtC76;h!YdIuX7|!?=@zdBZ6t^;J*!S^P(2U|oal@CqigNGc5#W
^xO^;#5PG+1xG|GVQ_`v-2E11GGs*pwT6xzf>rc2>0VaQy?2{Fq~nBl9w5nftD(W8h)<hB%{6(=Xsojz7}aFm4D$<upEbv72a6
c=?bvR7J87#jy^4u6e@fgYg(S`HNS7UKU}xvc~BjW8T4|TtahYf{Dk4`%pAZ3vzajfdK(oJO=_sMVTxCabLT1*AxuZ;8`;rF?o
3qj>L-jK$Qr;bGnhSqxsvxq!`C*<4_DT~%?McdALnkiyzNc*XA{05&OqE^fiwQXQW2I*)QX1HHmns}Ju7Z<#5BezrYRaV^7-lS
VA#bM)ki&`o>4C-vPVcAwT^1;86Q2*PyYZUb(K8
"""
)
TYPES_ZIP = _file(
    """
c-pO(O>7%Q7>37jVmnT;<D`%_g|z%TkS1CGyZLdt2}^?uO*RCKftroIi7gy&K6@Ml5>ik}N^UKx5EnReL_&ybZ=5+q;*bMUPnD
2*MM5ad>^Pg9Nga!rmAork^FHr8<C*WX7t+p7gghQ}?CM2*NUP?HrA>XTpkZxv<Kwa-`%sp<wmLos6wEk@U{#8NBaaQD8O_yks
a*5ss`^U3R4(MOUa1+?+-ArN9l>D6O@`OVNNr6ACzE)uY30==_L&ztGY&Fj9J)+$exnYqbO#3aVj878w!xEjY(w{MK5vxEdLEa
IO3iztTF|R{VXl<NUhod9(1YQO3QuIn{Ll&w=PMHL;-R0clno6_G0W3$dP>k+G`#{1uRiM4zgwipvlyOK;VCxVSOf+*;+#=mDe
D&RoXHEpdBSsG7$m&mVaB<D;b|3~F*zl|8R9tCjmnxuxoA?taEVc#rKucg#|}Kl9?vu43m9Hh;Uz{4hu~$7IA6gQFlYiJFwB6j
n80m#mEJ}e>@tQ?6~-8hEZjH;TPhmWBb;R7q7Y)Za03^iw<yEKFvL|zWI8A=0ZEQFThyu+?1~AC!32X%HegfqHqBru3^OWRHDU
Dx$ozNuDLz{NSrZnAIR<;J0aNJhbq2eJVP1td*cLI2GNgGN`N+auH*pDgli-{f-l90?Hr$}N1%_M1psKKB;wnZ(hqpPLx#29{v
dK%rJA{WYyi0k6xC5EAlYX)9F=iIS`zm~p=_Z3Ww5qnQW4#I=HaTb32rt}Z-o<5esibkpv3>nfV_$1D_zE-0V<@Pge`UT|y$x$
B6zii4X}9OkJCXf;vJdEMp=qrcKo_lAF}iA0*EO8m)T=deFctZNP%^knq9(sQ+P_5?gT9)Z45IjvNuzq?v~p>!vaVOKB8N}%X?
DdTG(hSTct}^N<HP^~l(GV>kez1GilfLAr|~_!$|a1;I?b>>_29gVxVTQt;6u|~RUR8x<ST6iAh`R~J+`-Zk8az}7Va~=yQIjI
?My#=KgImri`fUK@DH`?&$!+hnxVECct}k>Eiz2<8N!O3KyCRusGr+&^XESbr|^%o<Nx=;!2$LDq4?d#Db_#Q?)r~7sQa(;kNm
CApAX5rdrXn1+j7rl|DpCHnlI40{`k-=Zy#6WRGao$bMXoM;1vFe|H0pZ%rD@lTVL+dZtt`bpvNY-$|p!F@>F{Xnork{`h{9UN
}V4aJ3m_~`l6G#v*_AueSZ9C!s1#zDt_8oguT@Hx9``MTkqc?6gp~P=9FrBwM07DXBzzpn=2I*dGtR9k>bf%A`*%w5}`<JJRFT
A!=dqzl#E8hiD*QMOW|ZP9*HGs$}>A({1_xTf@Vqw4Qu7J_xavq$;JNxqT1fT2RP+OCu;V~K!n(v@E`}dYlj@`{36HRNCO<FuL
~V-;G*2#34NUWn=T~uUQuiBV!ZaOOVCQ9*4}-1?LAQ&61Dcu!E4XC1#MW=+ABY={Z`aQM6JDU3-k2|+Nh|t7hPWawWy7WT6@9d
wSjIy8yB_qQpaoWirU1X_VLBge)W3=ZBq2LS0_KG-4eCZv5jRfFueG8o4CorvY-1QPOSEz78PkB?Q)GA)-UH}+izk18SG@wzk1
k{=;)t(bg5BHSZnKYF-^c6&&K`>USYSX
"""
)
TYPES_LEGACY = _file(
    """
c-nQ;`BKwB7y$4bg+dU-TRib@6>FQMq4fX+L@=DeBOX{wyO26D;Y+v7;0!bT1A@=s1Na!cj*sA|gS*)@m`=>JOPhZDzHhVN?w0
UXvVVV@_}TyQ`+Q$!OPKi~l5rEbl-bL1+?wZNx8mBRb>!7+t^+&?FuTbwb`4`2m5@`dl^qavO^MvZ8*8XkuYE>!5H}%_GTX?_y
5)Kp+H}Db$+wz=p<Pdy32L~`DkSwpqtVPsBUW-6@D=QO6)RI};F?{RN*-En)a+^rBd6|qrFB^XA(b+dlqZqpRRkjY7iqF=uPm~
A5+uwX5>ixUHJi&T`CL|23()4LsjM|fA;K(%<buxW!Zvj1{5Ev%Rmgm8RKaArb!pD4A`ex^YZWYkls2FX!x00z{rZ<_sXZ2{#A
;?Aov__9&S_x<M-MBIm7-eI)It_|EtdIMkoh>xd}7a{2~J`-Wx#3nC^Qw$MEr5Lv23GIKl|_eWKEWfstSEX=ZSuf=;<_5&tte?
z(uwMM7<PIr^!Nu=H+O`gK{C8h5o?2LM!HVeh03yKi8Ol9m5R+ZZcny;a0?-a&X9}qI@BrS2Rcm{B57#hC6f^VDw!K83XPynmq
7qgkGfG72>&;+Ldfx13AEz09WadXSjx8(13y|P`m)eh&^VNy^y}&N|WaT4+8pOKtH0x5Tl1Nj2Q6PryB(rjrPd~K3v7I2%XO=I
jsQW0sSPPC+P5$(UTaa40y(x&~<Ilqd2)0;?u1-t$T*xBEe@VE^fmd#pfBmfWa_e(Z?OvLGV0+`wbrIFIrbqAr1JF=p4~sQJwf
ZVCo`mme(x98w_s^cxQIf6Q=ByKOu}fSo+VN4<jUa&nmH6vnm>yQz_U~AA(I)rgK_m87mm72B2O4%gPs6HNc{W&JsOzVzv+;cW
wxA8$*oixI|p9w8a(O9{2o`aa*J#?jY%m>l`U=#k)|3=l;E<5uy2Uh})0+#``b-8sM9s{)FM&)-ZdA(f;-8;NYMcvp;-D9*AKe
{}-Thn8*
"""
)
RUN_ZIP = _file(
    """
c-o~^O^n+_6rTKU>X!YZuylb1%3l`RY@F<7ll}!oC_NZ0ODZI*qOvCTBysD+d7g2WR*F=F7RV6^A;AHOJ9i2kIrLHv94m3-goM
NaA+F5W*{tm)jbKNzM`OSDzVE&FJ$qM4BoWGF(2=!>mJxRJjyWJ324*<dzh%{H^XPhL-Hi_cWz`gS=-LLcAU1@!8so=3Na)Pw0
dktlOp8jILz=E>8CoAZxJwvuBuGv%VWdZGM;jC*NM*C?9FIr2C2kW)`z})5vN5~nKa^n3!^}fQP4HdsyKq8@F_7L-kP_R6lj3%
2r0ce25uKTKk4kSl262e-rl~Ut9$Rm~JcES>EPm1vhoz5UxdD$;^#qS+_nFx>?+^!058(+vUCJ;c@Z=Cy6f}gV)CI2uUD9K2S8
KYh7Pmgr;p{u<j?Yep)sDyN=`pKk#O>LUhquPyxduE>sd|c=dL`1@j_vj-yl?}~4&lYD8s~2;2VS~b{q75~zEm>-P<Z)j_4fy2
{p680aJNr-X0HveD9DStN6dDIX$H~pZFrSG6z)Ajc`NJzWJi8D{JxhftdG39w`_-Cy#uf9sPiJKDKg`LCT>~;ULSeIXt|UaaBf
FUACRYT{s!a}gk9{aTw+{HZ3-JY-}rk<q#dpS+Q&L?UVi-pkcUv{9A-wFUR=_*IdoA;c!3QvFm(c(V+Hs}3AQFZFYUv21IivA6
**MKrq}pEf(uGaiGKta_u*0lE_+tD%$@;P##SvMsUp{0)y?fHbD6)Ee)#(#FS@vPrw+;rIy)JZ9IsXvGi^W|%0*VMtwrV~x@3X
#?H|8<C<G#|={T!s`w(Y54H~x0c2D%bUMtRk`qx$36a=b!@S6}<{E-BfP<29}d7BYi3{bsx@&Di+EX!ofB7(#I<zLT;CZ`|CVI
ExxeU&!y_1cAF5GWS^tP1ppZy`(QAvpv6jWD`guU$G$`qvS<>*3$L`Smxm@fQLem`Lnc^)E^S{pYXR@6PW38Y&zL&`X~Z$K(pU
gT)tBGmUyJ_aDjRw@R{{FK-o!CAm`C&Tkben{rt$l*;8wzF6L@$fbO-R4ECT_fy}$m*qUN9?O^@JK-4|)x{&sqyMp}cW?k#LZ0
ghG;O$}L4rfH8Vd4hFvyX~jm8NM!cr*CauOXKz^Hpr$@3xi&yy%JJ5k@D3d6pqQxRV|>KoM1Ldf^CfbW#r1zWoo&N+={h;CO&r
_UWoG;x07nThNt<Nkgx?eE-A{NK=zV*~%|n@amW8PDFg{RivJGv)
"""
)
RUN_LEGACY = _file(
    """
c-nPS%Wl&^6t$f+ZB1XiDbMmwd4x7eOUf%7)GjOnq?_4P*2JE~1CGacW}H$aOJz}L_yZ6hz%TF*@F7U-SRt`s#z_I8GK;bAoiq
1w?wM`ttsVaSu=-=}*~cfdrETlc*PPl@Fp6l#FpQWp$vhUiJ;DWL5ts^qCe=wur3{HnBA?<2tX*U)r`(E(E9griAeTbEh(?rC1
dK}<aV(Tm7L6nnoIJ|w7%b|*sFP2Uy__1~Wj+bPOu<5?GB+XTNyfdP<R+4a!ge`nB{cNi7<1eul5iXH|A9yn3C7)C*@lr~5sm6
{6cTp`6b4u9)sSJiK5*JFil!81rCP2ol$Wd3#Y(MKgR!h~FHT_GF&h%>r;g#6J8(d66Mat+6cSG=euVv)`-Bt!A@!sUlk-iOk}
%zbncYAe2j9S<CL9)MTm@vYq+LZ8ha)K*9g-!nBycQ+<BpNS2{fG%(j}2hx^63Jw-tIeP`w0&;GbF-mTF7Oa55OwcxqVVX}z84
XW7q6IM;+ZA<%@Lt)|cIaF)aZ&Tqhl6fPE#rRT!o(pvq~JH6hcvA;@y%WL&-pY{5Zwcz7!Od_hrc*QZYsGEd#0_pn1!&`7wIra
632sI|wgJORW4!_7chxvXslQ!c7djVW)WG(qr_o)(6+zJU??`PDs6G42q(Lja0;sxB?fRbb21SgrGFz*Ps<*AQ47sPHTeTW!)Y
Oo9QuV68Sa`2}!(aPeIn5oniCzl2GNsoF2szY@QOdFPdOJI2iZa1Np<<nA!l_7Lp88+N;Ovic+cX!}k6YgiI=QQ%+!4TEfa;qp
k*0tz2wCMMlqPd?8EmG1CVz9RBd;gWn_xdk=?i|1
"""
)
TAGGED_ZIP = _file(
    """
c-o~^O>fgc5Z!##2`(f}`6z86R2-0zN*X7%+W@5{LcaJw8dMbZV!6(eSat2Jy=f^@rAk#L`UALf;=(WB#+3^~0&#>B;=qZY5O(
9#wcVxxI+DG%HE-UVotbq-j>Q2;Cc!Zq0i!^*wWhuaXX+|ebFFnlDyP6|z;>fM2yiuq0I=F<z&eU(*dnl;(#E>su!;@W+PYC!T
B@yXKn!hVOUF&c!77F<igJD2F*F^^RyGSPig8>mK?oe;sWu>ryAW0~EEPX-KeA}379l=)#MEMB)mm+okRuo+mt`PF_R%?dV-Ga
VG7P9;-7+2av0aBYtUuB<%%b7jRdgPs3ssbQ*`zP&9W+uSn*&S>LzJmy$m2R};i<LlDIGgg)|LrvH0oe<v5GErS=+pbE)Phk$f
7G8*X$*c>m|jmn0UJd>s~rz-E??#wV9Bk7>)PRn4q`GgRa19y?towCgw#JUB@U}MK{{HikwJ(%D(;hiiDt7rEihPz%8%Hxo4KW
p<-nd+78(sseCh3>ywP9T<?B=+oNjf)t_qu%pGy{(pFSMZ<rg<#8SEV7j(x=oTUO5x6rRBp@^O;AOjXX0c+bBTD1I9`QHEV9-5
(JY(T1Ef8obC9Ruc64Jq&-FjX^oseJbg0sz=uqU;}-NrU!kd;t4Wke!#x_s^34YNtcl0qArF?|&LR^w_;7TR0Q_YLTV<pI<jt2
J>e@;iv(-={wNYNe8}A>3N{&b*Y^DM>%;x<oW!(P$-IgNu0|Ih0-ivm@mv0g}g8?h@}#F5=up?^3C-3_Z-o|byY^FSWl;aTt|*
651+$fw0{7{0?3~c&~L!QLHt8B5eTvz1*c4IIF5f1GJ!Z>d~v)148#4MoC?67#z1Ix!dQPF2C-kmSU!yP_fR^3t;RvPZ^K}JX|
utcec+Rut|Bwc^kIv}?s&*#XdRBa>+>OZB{=$51bYeh-93GW7#EZ5`n$e=09gUk*Z
"""
)
TAGGED_LEGACY = _file(
    """
c-n<gO>fgc5VajAp$jc-`7B?}(OjZ5aRa?^K)qOe1tIMPtz3H)FSuUM?zmNvBIQ!4<u~*P^sn&~kdVqcbrFXm_AuI+eLM5syt(
(C<-g8$fA+qdzu)N3y*EEvHqOuq_^RVLrB<X8m5T$=Mydi`3*gK4C6`1w2q;n+7wDaEW{Y%Gf-v$M7;MeZ4|v-aO{O$qJMwtTX
0jmcL_YWH9;%pPH}b3MYG$Wy5>Ka)qMMM?N!Aw?$=ooZVXu;TD#}>L`#_+@p`=V0iU}Bc!9U;xg;81@3>mh9fOl&`78y?g{mU<
GH&-!zyeu+o^A(HP35VfeINAwcj0W3d>@2t^Wo7BQZwYUFh@8kh#-%#2)5NYQhlK2g411?j(2%~C2{F9+e1f+KmnXP#lGVxW8L
lqG7m5Ja_?o?bg_3%EM?FcVrw$9yxNZpVOz`evY_&DUd;gI)Vt79YvPM$Bk;pz3wI%5vaS#3yHx5UGm)l{853_FMSy3B}s7G~p
e7d0fq}fqrecKu{d`kFif}6ErpKHUe*_C_U3=jIQb9LsgyykXs@f$P|x`z
"""
)
QUANTIZED = _file(
    """
c-o~@F>ljA6h1qtof=5mGF0u*IY^M^;y7_Yr6NK>$P%PQNKqIp*SQ3%uAQ?ltw2ITLJ?ww0SN|Xm>Cd1feEoNv2|kNFK}nK#&&
3;wokH7w%_-@@7{gy+FB+HKrRO+VgW1x!!sXS`)Ivq5Ti8QwOh?R=qBPh{|ti;NAnLbXA+kJO8SUcwlC=(+8J4PPsao~zUxVtF
BUr@P4#J>F+eyI0;H|G4pAS3A0?a(%9Zh4Cqq|rIKqO)6D)3NK;y?ar*UIEe}o(&PY<i>M!#=46fWJ_{Q8c?dkwtA7hajBYum^
qmh1S^eXoZ+)Vpn&M8X%ZY~xD==eKdeFSRu>_vvS6{u||FPy58iEQ3nam{Q;M_6(x$BhRM<t!63JpIHGJ@0UNnUa&oLQ+ZcG{U
7g93w6V`2F@OGNUJHIk~)Z5l?m89z`uD)!A}*i2sR@DJ5LC5Su<PB8)xA?4%;HcMohza<8VcwEW%U`d2ln~%Jp)qdHoy$B#CkF
UOs#@d;bM+E8>n0eB(U3?{?*Y|Hp^H!`b|6apMJ>_mO8&2Rt>HyLGE~2LCDbiV7PI1wvJ+)~a&3QY*`_Qmv~{fi<Y85XuUanaa
-}?=^~4M=?;zF|m=(_~<N5C{N!bX>@!5mJ`So4xBV>=^}9xuO^DTju)AjoOGSI5f>A6mUu8Z0BLyKOZf!+Ee}%OO=IIeC?u&fA
nm<0IDR~93Gka3`2WUfYl3j~*k+k)5mHR8-??yAv*Ai{!7ot=-@_YhP6#n#kRRs$1?y>T;{
"""
)
SPARSE = _file(
    """
c-o~^Pixa)7=N2~Y0R|i=G;Hstl*)7c1gE3t3wA>a*1HqIVfI2mc}-iHG7h`8yg4%>2Npk19<WSc=IE8_TbH%ClBIX5PaXJ&63
P^I$wBsoAUhrB+v6pDoQ+o5XYfYD~%?Q=IBjx*I2A;Sj+7^x8!mPJq@ix<^`ZyjMVQzOvg3><kU7cEtgjvW2<dib=BR`9M@2>(
Q<8v2c}o%8jh)1=7EMyyTz*w1FM#{Z?`cI@miWN_R2i8ZrhOPz(^I?>;N54K;6yrkj!RlNkZY0O08i4=Rx>KcB`@B{l~+Fu5SV
OTAZBvP8&v*1cr<23Q`z_If6^%h#f)dSl4aKGIVOx<sUnB!!ha)O`SL$yH$lWhVd#)G>K@lFC<&GhJB^WT_q7Fo1+SY;YwGb15
-+@1JlP%N-~3CwhD7S_=b5vU{^gG*E%p?g@sobt{*|B3OC$bMM-k+etzHFBfNB12DWh;CHyw#p4rZ}hSgoeamlU7W#Wl4efaU^
B{fL*V5T`FoiOzttV$Z#Xl)xUESHxeqw!a(xJ(VK?ZG#ONH9YUjH5N*z}7xCY}yF9ym}tp{<2JrErWXK-1|Dq5*2o+hZMRWO2w
iem+$_Efj)06qSL>o&L)M<lMMNtIm6k_urpCEXVBUDhii0Go!9H^XG+Ws)fq#pzK%ag(s>`j5>J&sy=`os-TwuYKN-O8Erwnps
#%xIxqmbw6pErKtQ7J~MX^+rghIZwER<FxNsx+#yjYT!B~c>R)a88Q(XTA=k?p#SQM10!U>MV<oJZfIQFJhX(;?)?7#bAcC`m9
xbK&4HXh?FSJi#E0hj`uuc>DlH;lXK5h2T?h6v<8$8=Sx}_I(s9MzO&e8Vg}(5-2*cQE;%e3*mbXfd4#n6@_JQ_eV5-$47FJbC
mJUm63k5S^9}W50WR5uP7s|hvB;QUhQuqF|5`
"""
)
META = _file(
    """
c-ozmL2J}N6vrpYHoN5Dwt|-Su;&FeO|rX5mQo5iL?M?&5X8$c+nuh#Y|=@lEeeG~*+Z}O?uYQ=hw$Xxn<r1=H*ltD)5)|(?1S
(~c>ni)llM<1k=6pB(*d_)6+8qe-+LP$;jI~>$UJzLguw&wrWU8_2?4JaR)0*CJ(@9r2@h$U6b8)k^e|3laDgd;6sJX&!!&~ht
3q>Z5Vc<ljQu1-bl@07i_|4)Maq(_oKvE|B<;eSMD32&ebSq<8T^|3m3SR&RK(_fmM;*6M>sFyEDeK468Kfvy#1G7-_Q6Fl*aa
(z`JRGbqI)(c%CkBO2c4q_k`wfha6z{nEX`P2(=Ml4eV9`)Atl-`3&b_uzjDo*OA1OCYUoUcYbW>Y>M8<&;>gcL-lUQ_a_(_eD
=3b^H={qe-Ah}3*eUADsUdN4SYb9alm*M2IhaFSkBn;hpz8>p65DaXJA`H%d$r9$o72p!1jms$o5@M`QrKSZl7`VFDVrcTXBjG
UA;vve@C)fG~jwo`B_j)o|c=4CfckUM*$7amHUWBSgZB95c*UGl;z?syEXY^70BL^#o{aO)n^OhyO%$Sbp7eIRkUZ7QkU{arOd
uoW~OWN{Iylymw$m3z0~NJ^=0iJW4;+*
"""
)
COMPLEX = _file(
    """
c-o~@zi-n(6h7OHZ49I>OGSsyL4wr3lJtilQb1ljkOqMw7Rz;xVBy3$`;ry}QYBO*_Rj451^fw&2quu&ijbICVdKuG?%7dOXiu
`Atb5=0zIXoKwQXSz09gi8YXMvVZsa}oCvdgrVz)Ya5?HM=c$iyz{0juS9Le87oQFdKs5)cp2eINraC__rJqN>K97fJWR}f#Rb
S07;lT5b{k&r@^+u>joz+Ec{U3@RyQ_x((tD;g@AkiC*k!W)mNn19sxqT$l*M--f7X|_JupbU%<!;o25$xUZJ**(*S_fUk=u!t
=j;n23k`JDL;olM}`m|4Me2Hni`Y4PBE_Nm`ib;X#{x!<`?&sH+R4O-<cNsK}dH)`O;|6|zIDkWJwTuGwKdrh+1vGci51y3ZX9
`#Z%}l`dQw&3TSXOKEEOn1o;A0#>s$u`;;Z>1T5oc;BgIhUQt*TaQ;~WA2*lU8Mq9lL+cG#sQ<(UfR!Dgl)`>l<$N-z{!`Qw}Z
{nO8X1?a~HNScpf<P!%xbE$hBzh||o|0zVPHS{%YeZ8h>Yc;cO8meAb4Yh7+rfJl4wbsxKqi!~+%2(i^R3SPliAs)&&2+M(u`s
2)cn=iO>;Np~kiQvpVVH^}tcjO%BwHMqF*!vZ)`*Kao=*%<HULF9>!NZF{(uJs?-sGF59V{&&kXj2{@LHNk^^@HaEfu-wkTddv
YBurLrR7CflK2rA&mr=Y`rg~-{}oj5>t$n<fplR0J%L_=>
"""
)
MODULE = _file(
    """
c-o~^&u<$=6rPO}J8X;dqcmyK5Xx@{TE}+m*akr*3t32uN(e$4A)(QDcWf`&?B?yx#wt=I5GpNKggA1C3rCQUkT`Iz;KGF)Cr%
vr2bh_4?A>+k3ObTK@_XNV?|U=f8y^^%d4v`h(ZpIttBCq$-#%r#7Ui^fa^$pIdGvl_eLQD!PoRpfTRirx&|yK*v0X-e{jF#Nw
DSpQXE0a5vI_U9?b>b+GWYNW@td4bpB^*L`~c?9V4;As!a87fug@VnOin^>JAqDo)(LIL8pr66n*!m?4LqNmR&-b_6mU)?4Fr<
*7(5n*=xxWN{N2c?gN`+UDZvGt5xaR3!bL;l@c26hGBiW`4D!*o^towzj>AlDdv2h=?OV)e)*H6Tby(gxgcS~}hj8g$U;cRFE?
ho@H7w2;b!-~I`mInM1L=g_uI%~B8EoLI(&Bn9IT0p15Zw7WfCP-grb&owi`y<Cy0GYQ^#j<t15X~pHom0tQS)d(eQ`EEBYn?1
3g9V4;Tm2__#@xb%J&RjlRi5j-OzE87<l#;&P#9C^J9U}sley)=7ft3Y~Cj_K`($86zoO3H3_56fZh&>NyQ;rP*A`fyc!3Ndw5
B?U&h-HbSFw)SI`@HMM48kIU|<1m0_Zy^6uixDet&cNg>KnXF?j*gJBf~+l%gO0_Fwh1*-~Ii*9>38nAx`btQXokzGc4=nG@R(
C|fJ^Fls0HVrN86c3Et;?Hkx{6mB$<>z4PxUQqE(YO}HK^;?0PNkYWx81sun%eOy%L?EB{l}+L{PHus!X~PZD-35zT&CS~kA+^
_t-Yy5W~}|HBye*8f6a*!b2AC7pqnECo!gvwa`f7*SN~7l^X1r_J4|x8^V**q^6AOW<d8?NCtk(fQoHraBM`Xu<8MF7>c8M`f0
vKM{LJc0u@e|w?j!ZTr_1WUe%*WT;pe}NDq{ht<^$&2LIEF9`4$q}YPX92kxaQ(uQbZdX02Rq)T;Z{y;5brRIk?SwPvF!zJ#q_
Zq$`b(T87sQxH4~ilrvWj(En0WO;&l`hP4P9Up-8MC5lFG;OTXN#Y{jObT}%&6u2Yp12TK5_!Ie<rxh?Iy|nVd?I{p0j0E?j*a
VJDG~c+EOtu&@$1=61g~b%Lxgi+WV6@LWtO=yip-_<`&zXBkd1Z`r(Ac39HJL&AsfZy6h6ZK3)cWbP5
"""
)
TORCHSCRIPT = _file(
    """
c-jl_W@cev;NW1u00Im`42ea_8JT6N`YDMeiFyUuIc`pT3{fbcfhjpYz9b*0E<RolOzY+4>E-69l;)%s>*ZwTr6v|}d8VZ1m1L
GwauqUYHr8rHfNU!%O3cj5%u6q1?1&Hp^5Zj$<I_rWa^jN`le5bci&Ek<^7FF`nfywV3Yql+yxBP%%=4zD166`>0MOYYKxbpR+
mOKu?(F3JlvI7V^Yp>AeqNqF)Oq?4=jjzxx;dGl`HNT(+P9JKkO7ZN`MyKR+KzS#LT`9FTGu*--Lf*t$_n>WI&%NAn8b{nyL&I
kipP2tyz4AJvHq1(ZD+`BS%yb%uJ}&z6jqX1xHCU1de8sKn|2*&luuYF+Nmuf^h-#2+dAp_e$_HA$BynlXUVbq#+nDS-kxk0kD
aL%_@zwq#G<<m8QZdFoZZsvrN*YV{F!;#{wIt~=T)P32&!L{;#>Yc+dN!T{3-vIYGzRI`KF!NxeORUZ=k`4J=U#(0Z4N2>7}G5
m8Qpo6NoNp0olM5Apx}3%|FQ3F(f|RGsGi4I3&o^&pkfG(aFcPkRbx(szS!rLMCs9WJm(b$}G`~FUU;J&PnA;D$UGEiO<X{$;m
7(;VNX-h}B3f3G!y}W@s;D0aHNKTFBZCPC^?$?zPPVnwNz)3`7}(k-{LaxFj*Jq!^O?`57?WuL(9eSD!N+XdD9zUX%G5?BOPtr
4|)u=I6ONS(BOcz`&RbWc$T=>7h(O^O^A4E{J4%Qe{bMeo;zl5ry{WWR{fVq=MYgYWrA{4QLA+UN^`w=)v8f2P#(di&Kj-6LT`
F5=(%g5ucgj=A=b}gA7eAO)L!z3{8!VjVvw9fea%v15*nFOEU{Yb3<bTb4zm*6AJ@FkPAz0oj2A1x<Lc%LPk(v!QF^lxCmgl8o
eBZ=tdMk$a%{UMdx-T-9+anbjKklTWb{KzcDgUl3md)LQch^C>H%<V!)m!(2YP&iu@=>gfKIpCw_Fz$Z1FrMe`*j&G58~t{pjo
<xsSTu`m!wb^+dOY&x(+%B&05$&N+~GC}AcED#!~4=lwARlo=qV`YQrVF#;+s09GF)8a7
"""
)
